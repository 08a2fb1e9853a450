"""A mixture of SwiGLU experts with a softmax router (Qwen3-MoE), and its load-balancing loss.

Takes hidden states; gives hidden states and, in training, one balancing loss per row. Each token is
sent to its top-k experts whatever their load: no capacity, nothing is dropped.
Shapes: B rows, S positions, N = B*S tokens, k experts per token, E experts, I expert width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.models.config import ModelConfig


class Router(nn.Module):
    """Linear layer to one logit per expert; holds only the weight, [E, hidden]."""

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.top_k = config.num_experts_per_tok
        self.norm_topk_prob = config.norm_topk_prob
        self.weight = nn.Parameter(
            torch.empty(config.num_experts, config.hidden_size, device=device)
        )

    def forward(self, x_NH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns probabilities [N, E] fp32, weights [N, k] fp32, expert numbers [N, k] int64."""
        probabilities = F.linear(x_NH, self.weight).softmax(-1, dtype=torch.float32)
        weights, experts = probabilities.topk(self.top_k, dim=-1)
        if self.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        return probabilities, weights, experts


class Experts(nn.Module):
    """E SwiGLU layers stored as two tensors, as transformers 5 keeps them in memory."""

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        E, H, width = config.num_experts, config.hidden_size, config.expert_width
        self.gate_up_proj = nn.Parameter(torch.empty(E, 2 * width, H, device=device))
        self.down_proj = nn.Parameter(torch.empty(E, H, width, device=device))

    def forward(self, x_NH: Tensor, weights_Nk: Tensor, experts_Nk: Tensor) -> Tensor:
        """Weighted sum of each token's experts, [N, hidden] in the dtype of the computation."""
        N, k = experts_Nk.shape
        E = self.gate_up_proj.shape[0]
        order = experts_Nk.flatten().argsort(stable=True)
        # Where each expert's tokens end; comparing avoids bincount's wait for the device.
        counts = (experts_Nk.reshape(-1, 1) == torch.arange(E, device=order.device)).sum(0)
        ends = counts.cumsum(0).to(torch.int32)
        device_type = x_NH.device.type
        if torch.is_autocast_enabled(device_type):
            dtype = torch.get_autocast_dtype(device_type)
        else:
            dtype = self.gate_up_proj.dtype
        inverse = torch.empty_like(order).scatter_(
            0, order, torch.arange(N * k, device=order.device)
        )
        sorted_x = _gather(x_NH.to(dtype), order, inverse, k)
        multiply = _grouped if _grouped_runs(sorted_x, self.down_proj) else _one_by_one
        gate, up = multiply(sorted_x, self.gate_up_proj.to(dtype), ends).chunk(2, dim=-1)
        sorted_out = multiply(F.silu(gate) * up, self.down_proj.to(dtype), ends)
        out_NkH = _gather(sorted_out, inverse, order, 1).view(N, k, -1)
        return (out_NkH * weights_Nk[:, :, None].to(dtype)).sum(1)


class _Gather(torch.autograd.Function):
    """Rows `order // k` of x, where `order` is a permutation of k copies of each row.

    Autograd would add the gradients into place one by one (on CUDA by sorting, or in random order);
    as the inverse permutation is known, they are gathered and summed instead.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor, k: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.k = k
        return x[order // k]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradients[0][inverse].unflatten(0, (-1, ctx.k)).sum(1), None, None, None


def _gather(x: Tensor, order: Tensor, inverse: Tensor, k: int) -> Tensor:
    gathered = _Gather.apply(x, order, inverse, k)
    assert isinstance(gathered, Tensor)  # `apply` is untyped
    return gathered


def _grouped_runs(x: Tensor, down_proj: Tensor) -> bool:
    """CUDA's grouped matmul takes bfloat16 with rows of a multiple of 16 bytes."""
    aligned = down_proj.shape[1] % 8 == 0 and down_proj.shape[2] % 8 == 0
    return x.is_cuda and x.dtype == torch.bfloat16 and aligned


def _grouped(x: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """Rows of expert e times its weight, in one kernel and without asking the device for sizes."""
    return F.grouped_mm(x, weight_EOI.transpose(1, 2), offs=ends_E)


def _one_by_one(x: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """The same by a loop over experts (any device and dtype; waits for the device once)."""
    ends = ends_E.tolist()
    starts = [0, *ends[:-1]]
    parts = [
        F.linear(x[a:b], weight_EOI[e]) for e, (a, b) in enumerate(zip(starts, ends, strict=True))
    ]
    return torch.cat(parts)


class MoE(nn.Module):
    """The feed-forward part of a Qwen3-MoE layer."""

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.gate = Router(config, device)
        self.experts = Experts(config, device)

    def forward(self, x_BSH: Tensor, real_BS: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Hidden states and, in training, the balancing loss of each row, [B] fp32.

        Args:
            real_BS: bool, False on padding; None when there is none.
        """
        B, S, H = x_BSH.shape
        x_NH = x_BSH.reshape(-1, H)
        probabilities, weights, experts = self.gate(x_NH)
        out = self.experts(x_NH, weights, experts).view(B, S, H)
        if not self.training:
            return out, None
        return out, balance_loss(probabilities.view(B, S, -1), experts.view(B, S, -1), real_BS)


def balance_loss(probabilities_BSE: Tensor, experts_BSk: Tensor, real_BS: Tensor | None) -> Tensor:
    """E * sum over experts of (choices per token) * (mean probability), for each row alone.

    Switch Transformer eq. 4-6 (Fedus et al. 2021, arXiv:2101.03961) as Qwen3-MoE counts it: k when
    balanced. Per row, so that it depends neither on the micro-batch nor on the number of devices;
    a row of padding alone gives 0. Returns [B] fp32.
    """
    E = probabilities_BSE.shape[-1]
    chosen_BSE = torch.zeros_like(probabilities_BSE).scatter(-1, experts_BSk, 1.0)
    if real_BS is None:
        return E * (chosen_BSE.mean(1) * probabilities_BSE.mean(1)).sum(-1)
    real_BS1 = real_BS.unsqueeze(-1).to(probabilities_BSE.dtype)
    tokens_B1 = real_BS1.sum(1).clamp(min=1)
    fraction_BE = (chosen_BSE * real_BS1).sum(1) / tokens_B1
    mean_BE = (probabilities_BSE * real_BS1).sum(1) / tokens_B1
    return E * (fraction_BE * mean_BE).sum(-1)

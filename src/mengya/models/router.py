"""Routers: which experts a token goes to, with what weights, and how their load is kept even.

Takes hidden states; gives scores, weights and expert numbers. `balance_loss` and the bias of
`SigmoidRouter` are two ways to balance the load.
Shapes: B rows, S positions, N = B*S tokens, k experts per token, E experts, G groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.kernels.linear import fp32_linear
from mengya.models.config.model import ModelConfig

_PASSES = 4  # up to this many experts per token are searched one by one


class Routes(NamedTuple):
    """scores_NE: fp32, each token's sum to one. weights_Nk: fp32. experts_Nk: int64."""

    scores_NE: Tensor
    weights_Nk: Tensor
    experts_Nk: Tensor


class Router(nn.Module):
    """Linear layer to one logit per expert, [E, hidden], and a softmax over them (Qwen3-MoE)."""

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.top_k = config.num_experts_per_tok
        self.norm_topk_prob = config.norm_topk_prob
        self.weight = nn.Parameter(
            torch.empty(config.num_experts, config.hidden_size, device=device)
        )

    def forward(self, x_NH: Tensor) -> Routes:
        logits = F.linear(x_NH, self.weight.to(x_NH.dtype))
        probabilities = logits.softmax(-1, dtype=torch.float32)
        experts = _top(probabilities.detach(), self.top_k)
        weights = probabilities.gather(1, experts)
        if self.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        return Routes(probabilities, weights, experts)


class SigmoidRouter(Router):
    """A sigmoid for each expert; a bias, moved by load and not by gradient, corrects the choice.

    DeepSeek-V3 (arXiv:2412.19437, eq. 12 to 16; Wang et al. 2024, arXiv:2408.15664):

        s = sigmoid(W x);  chosen = top-k of (s + b) within the best groups;  weights from s alone

    A group is as good as its two best experts. `e_score_correction_bias` (b, [E] fp32) is a buffer:
    saved with the weights and kept in fp32 whatever dtype the model takes.
    """

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__(config, device)
        self.groups, self.kept_groups = config.n_group, config.topk_group
        self.scale = config.routed_scaling_factor
        self.speed = config.router_bias_update_speed
        bias = torch.zeros(config.num_experts, dtype=torch.float32, device=device)
        self.register_buffer("e_score_correction_bias", bias)
        self.e_score_correction_bias: Tensor

    def forward(self, x_NH: Tensor) -> Routes:
        # In fp32 as transformers does: a rounded score sends a token to another expert.
        scores_NE = fp32_linear(x_NH, self.weight).sigmoid()
        experts = self._choose(scores_NE.detach() + self.e_score_correction_bias)
        weights = scores_NE.gather(1, experts)
        if self.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        shares_NE = scores_NE / scores_NE.sum(-1, keepdim=True)
        return Routes(shares_NE, weights * self.scale, experts)

    def _choose(self, biased_NE: Tensor) -> Tensor:
        if self.kept_groups < self.groups:
            groups_NGg = biased_NE.unflatten(-1, (self.groups, -1))
            quality_NG = groups_NGg.topk(2, dim=-1).values.sum(-1)
            best = quality_NG.topk(self.kept_groups, dim=-1).indices
            left_out = torch.ones_like(quality_NG, dtype=torch.bool).scatter(-1, best, False)
            biased_NE = groups_NGg.masked_fill(left_out[..., None], float("-inf")).flatten(-2)
        return _top(biased_NE, self.top_k)

    @torch.no_grad()
    def move_bias(self, load_E: Tensor) -> None:
        """One step of `speed` towards an even load: up for experts below the mean, down above it."""
        load_E = load_E.to(self.e_score_correction_bias.device)
        direction_E = (load_E.sum() - len(load_E) * load_E).sign()  # exact in integers
        self.e_score_correction_bias += self.speed * direction_E

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        kept = self.e_score_correction_bias
        super()._apply(fn, recurse)
        moved = self.e_score_correction_bias
        if moved.dtype != torch.float32:
            self.e_score_correction_bias = kept.to(moved.device)
        return self


def balance_loss(scores_BSE: Tensor, experts_BSk: Tensor, real_BS: Tensor | None) -> Tensor:
    """E * sum over experts of (choices per token) * (mean score), for each row alone.

    Switch Transformer eq. 4-6 (Fedus et al. 2021, arXiv:2101.03961) as Qwen3-MoE counts it: k when
    balanced. Per row, so that it depends neither on the micro-batch nor on the number of devices;
    a row of padding alone gives 0. Divided by k it is DeepSeek-V3's sequence-wise loss (eq. 17 to 20).
    Returns [B] fp32.
    """
    E = scores_BSE.shape[-1]
    chosen_BSE = _is_chosen(experts_BSk, E).sum(-2).to(scores_BSE.dtype)
    if real_BS is None:
        return E * (chosen_BSE.mean(1) * scores_BSE.mean(1)).sum(-1)
    real_BS1 = real_BS.unsqueeze(-1).to(scores_BSE.dtype)
    tokens_B1 = real_BS1.sum(1).clamp(min=1)
    fraction_BE = (chosen_BSE * real_BS1).sum(1) / tokens_B1
    mean_BE = (scores_BSE * real_BS1).sum(1) / tokens_B1
    return E * (fraction_BE * mean_BE).sum(-1)


def count_load(experts_Nk: Tensor, real_BS: Tensor | None, num_experts: int) -> Tensor:
    """How many real tokens were sent to each expert, [E] int64."""
    chosen_NkE = _is_chosen(experts_Nk, num_experts)
    if real_BS is not None:
        chosen_NkE = chosen_NkE & real_BS.reshape(-1, 1, 1)
    return chosen_NkE.sum((0, 1))


def _is_chosen(experts: Tensor, num_experts: int) -> Tensor:
    """[..., k, E] bool. Compared, not scattered: compiled, it is never stored, and needs no atomics."""
    return experts.unsqueeze(-1) == torch.arange(num_experts, device=experts.device)


def _top(scores_NE: Tensor, k: int) -> Tensor:
    """The indices of `topk`. For a small k by as many passes over the row, which compile into the
    kernel that made the scores; `topk` is a kernel of its own with a block of threads per token."""
    if k > _PASSES:
        return scores_NE.topk(k, dim=-1).indices
    best = []
    for _ in range(k):
        best.append(scores_NE.argmax(-1, keepdim=True))
        taken = _is_chosen(best[-1], scores_NE.shape[-1]).squeeze(-2)
        scores_NE = scores_NE.masked_fill(taken, float("-inf"))
    return torch.cat(best, -1)

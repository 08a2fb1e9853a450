"""A mixture of SwiGLU experts, routed and shared.

Takes hidden states; gives hidden states and, in training, the load of each expert and one balancing
loss per row. Each token is sent to its top-k experts whatever their load: no capacity, nothing is
dropped. router.py chooses them, kernels/experts computes their products.
Shapes: B rows, S positions, N = B*S tokens, k experts per token, E experts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mengya.kernels.experts import op
from mengya.kernels.experts.reference import grouped_experts
from mengya.kernels.quantized import training
from mengya.kernels.quantized.weight import Scheme
from mengya.models.config.model import ModelConfig
from mengya.models.feed_forward import SwiGLU
from mengya.models.router import Router, SigmoidRouter, balance_loss, count_load


class Experts(nn.Module):
    """E SwiGLU layers stored as two tensors, as transformers 5 keeps them in memory.

    Attributes:
        scheme: multiply by weights that are rounded so; None: as they are.
        rounds_inputs: round the inputs of every product to 8 bits. models/quantized sets both.
    """

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        E, H, width = config.num_experts, config.hidden_size, config.expert_width
        self.gate_up_proj = nn.Parameter(torch.empty(E, 2 * width, H, device=device))
        self.down_proj = nn.Parameter(torch.empty(E, H, width, device=device))
        self.scheme: Scheme | None = None
        self.rounds_inputs = False

    def forward(self, x_NH: Tensor, weights_Nk: Tensor, experts_Nk: Tensor) -> Tensor:
        """Weighted sum of each token's experts, [N, hidden] in the dtype of the computation."""
        device_type = x_NH.device.type
        autocast = torch.is_autocast_enabled(device_type)
        dtype = torch.get_autocast_dtype(device_type) if autocast else x_NH.dtype
        x_NH, (gate_up, down) = x_NH.to(dtype), (w.to(dtype) for w in self.weights())
        if self.rounds_inputs:
            x_NH = training.rounded_inputs(x_NH)
            return grouped_experts(
                x_NH, weights_Nk, experts_Nk, gate_up, down, training.rounded_inputs
            )
        multiply = op.fused_experts if op.is_supported(x_NH, down) else grouped_experts
        return multiply(x_NH, weights_Nk, experts_Nk, gate_up, down)

    @property
    def gate(self) -> Tensor:
        """Of every expert, [E, width, H]."""
        return self.gate_up_proj.chunk(2, dim=1)[0]

    @property
    def up(self) -> Tensor:
        """Of every expert, [E, width, H]."""
        return self.gate_up_proj.chunk(2, dim=1)[1]

    def weights(self) -> tuple[Tensor, Tensor]:
        """What is multiplied by: gate and up of every expert, and down."""
        if self.scheme is None:
            return self.gate_up_proj, self.down_proj
        gate_up = [training.rounded(part, self.scheme) for part in (self.gate, self.up)]
        return torch.cat(gate_up, dim=1), training.rounded(self.down_proj, self.scheme)


class Routing(NamedTuple):
    """What a layer reports of its routing in training.

    load_E: [E] int64, real tokens sent to each expert. aux_B: [B] fp32 balancing loss, or None where
    its coefficient is 0.
    """

    load_E: Tensor
    aux_B: Tensor | None


class MoE(nn.Module):
    """The feed-forward part of a Qwen3Moe, Qwen2Moe, Glm4Moe or DeepseekV3 layer.

    Shared experts are one SwiGLU that every token passes: added as it is with a sigmoid router,
    times a learned sigmoid gate with a softmax router (`shared_expert_gate`, Qwen2Moe).
    """

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.sigmoid = config.scoring_func == "sigmoid"
        self.aux_wanted = config.aux_loss_coef > 0
        self.gate = SigmoidRouter(config, device) if self.sigmoid else Router(config, device)
        self.experts = Experts(config, device)
        self.shared_experts = self.shared_expert = self.shared_expert_gate = None
        if config.n_shared_experts:
            width = config.n_shared_experts * config.expert_width
            shared = SwiGLU(config.hidden_size, width, device)
            if self.sigmoid:
                self.shared_experts = shared
            else:
                self.shared_expert = shared
                self.shared_expert_gate = nn.Linear(
                    config.hidden_size, 1, bias=False, device=device
                )

    def forward(self, x_BSH: Tensor, real_BS: Tensor | None) -> tuple[Tensor, Routing | None]:
        """Hidden states and, in training, the load and the balancing loss.

        Args:
            real_BS: bool, False on padding; None when there is none.
        """
        B, S, H = x_BSH.shape
        x_NH = x_BSH.reshape(-1, H)
        scores, weights, experts = self.gate(x_NH)
        out = self.experts(x_NH, weights, experts).view(B, S, H)
        if self.shared_experts is not None:
            out = out + self.shared_experts(x_BSH)
        elif self.shared_expert is not None and self.shared_expert_gate is not None:
            out = out + self.shared_expert_gate(x_BSH).sigmoid() * self.shared_expert(x_BSH)
        if not self.training:
            return out, None
        aux_B = None
        if self.aux_wanted:
            aux_B = balance_loss(scores.view(B, S, -1), experts.view(B, S, -1), real_BS)
            if self.sigmoid:
                aux_B = aux_B / experts.shape[-1]
        return out, Routing(count_load(experts, real_BS, scores.shape[-1]), aux_B)

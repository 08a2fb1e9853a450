"""Where the inputs of a site may be scaled because what makes them can be scaled back.

Takes the halves of a decoder layer; gives folds. Dividing the norm before q, k and v by s and multiplying
their columns by it changes nothing but what rounding does to them.

    norm -> q, k, v; in latent attention its projections of x, and norms of latents -> q_b, kv_b
    v -> o, where each query head has values of its own: not with grouped heads, but in latent attention
    norm -> gate, up of all experts; the router and the gate of the shared expert follow
    up -> down: silu(gate) * up is linear in up

Shapes: I inputs of the site.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from mengya.models.attention import Attention
from mengya.models.feed_forward import SwiGLU
from mengya.models.mla import LatentAttention
from mengya.models.moe import MoE
from mengya.models.norm import RMSNorm
from mengya.quantization.groups import Half, Site


@dataclass(frozen=True)
class Fold:
    """
    Attributes:
        group: number of the group in its half.
        sites: numbers of the sites in the group that share these inputs.
        divide: what makes the inputs, each with their I channels in its first dimensions.
        multiply: other users of the inputs, [..., I], which are not quantized.
    """

    group: int
    sites: tuple[int, ...]
    divide: tuple[Tensor, ...]
    multiply: tuple[Tensor, ...] = ()

    @torch.no_grad()
    def apply(self, s_I: Tensor, sites: list[Site]) -> None:
        """Scale the inputs of `sites` by 1 / s and their weights by s, in place."""
        for tensor in self.divide:
            channels, width = 0, 1  # the first dimensions that together are the I channels
            while width < len(s_I):
                width *= tensor.shape[channels]
                channels += 1
            ones = [1] * (tensor.ndim - channels)
            tensor.div_(s_I.view(*tensor.shape[:channels], *ones))
        for tensor in self.multiply:
            tensor.mul_(s_I)
        for site in sites:
            for matrix in site.matrices:
                matrix.weight_OI.mul_(s_I)


def half_folds(half: Half) -> Iterator[Fold]:
    """The folds of a half, those first whose sites come first."""
    block, norm = half.block, half.norm.get_parameter("weight").detach()
    if isinstance(block, Attention):
        yield Fold(0, (0,), (norm,))
        if block.groups == 1:
            yield Fold(1, (0,), tuple(_rows(block.v_proj)))
    elif isinstance(block, LatentAttention):
        yield from _latent(block, norm)
    elif isinstance(block, MoE):
        yield from _mixture(block, norm)
    else:
        yield Fold(0, (0,), (norm,))
        yield Fold(1, (0,), (cast(SwiGLU, block).up_proj.weight.detach(),))


def _latent(block: LatentAttention, norm: Tensor) -> Iterator[Fold]:
    yield Fold(0, (0,), (norm,))
    number = 1
    if block.q_a_layernorm is not None:
        yield Fold(number, (0,), (cast(RMSNorm, block.q_a_layernorm).weight.detach(),))
        number += 1
    yield Fold(number, (0,), (block.kv_a_layernorm.weight.detach(),))
    up = block.kv_b_proj.weight.detach().view(block.heads, -1, block.rank)
    yield Fold(number + 1, (0,), (up[:, block.nope :],))


def _mixture(block: MoE, norm: Tensor) -> Iterator[Fold]:
    experts, E = block.experts, len(block.experts.gate_up_proj)
    others = [block.gate.weight.detach()]
    if block.shared_expert_gate is not None:
        others.append(block.shared_expert_gate.weight.detach())
    shared = block.shared_experts if block.shared_experts is not None else block.shared_expert
    yield Fold(0, tuple(range(E + (shared is not None))), (norm,), tuple(others))
    for e, gate_up in enumerate(experts.gate_up_proj.detach()):
        yield Fold(1, (e,), (gate_up.chunk(2)[1],))
    if shared is not None:
        yield Fold(1, (E,), (shared.up_proj.weight.detach(),))


def _rows(linear: nn.Linear) -> Iterator[Tensor]:
    yield linear.weight.detach()
    if linear.bias is not None:
        yield linear.bias.detach()

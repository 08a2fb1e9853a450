"""The experts of a mixture with codes in words, of all experts in one tensor, on CUDA.

A few tokens (decoding) touch the chosen experts alone, without asking the device which they are; for more
the weights of the layer are unpacked for kernels.experts, and their memory is free again afterwards.
Shapes: N tokens, k experts per token, E experts, H hidden, J twice the width of an expert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mengya.kernels.experts import op
from mengya.kernels.experts.reference import grouped_experts
from mengya.kernels.quantized.packed import PackedWeight
from mengya.kernels.quantized.word_weight import WordWeight, multiply_chosen, unpack
from mengya.kernels.swiglu import swiglu_plain

FEW_ROWS = 64  # products of a token with an expert


@dataclass(frozen=True, eq=False)
class ExpertStack:
    """Gate and up of each expert below one another, E J outputs, and down, E H outputs."""

    gate_up: WordWeight
    down: WordWeight
    experts: int

    def __deepcopy__(self, memo: dict[int, Any]) -> ExpertStack:
        """A copy of a model shares it, as it shares the weights."""
        return self

    def __call__(self, x_NH: Tensor, weights_Nk: Tensor, experts_Nk: Tensor) -> Tensor:
        """Weighted sum of each token's experts, [N, H] in x's dtype."""
        if experts_Nk.numel() > FEW_ROWS:
            gate_up = unpack(self.gate_up, x_NH.dtype).unflatten(0, (self.experts, -1))
            down = unpack(self.down, x_NH.dtype).unflatten(0, (self.experts, -1))
            multiply = op.fused_experts if op.is_supported(x_NH, down) else grouped_experts
            return multiply(x_NH, weights_Nk, experts_Nk, gate_up, down)
        k = experts_Nk.shape[1]
        gate_up = multiply_chosen(self.gate_up, self.experts, x_NH.contiguous(), experts_Nk, k)
        rows = multiply_chosen(self.down, self.experts, swiglu_plain(gate_up), experts_Nk, 1)
        return (rows.unflatten(0, (-1, k)) * weights_Nk[:, :, None].to(rows.dtype)).sum(1)


@torch.no_grad()
def stack_experts(experts: Sequence[Sequence[PackedWeight | None]]) -> ExpertStack | None:
    """Of (gate, up, down) of each expert, which then share its memory; None if they cannot."""
    gate_ups = _words([matrix for gate, up, _ in experts for matrix in (gate, up)])
    downs = _words([down for _, _, down in experts])
    if not gate_ups or not downs:
        return None
    gate_up, down = (first.merge(rest) for first, *rest in (gate_ups, downs))
    if not isinstance(gate_up, WordWeight) or not isinstance(down, WordWeight):
        return None
    return ExpertStack(gate_up, down, len(experts))


def _words(matrices: list[PackedWeight | None]) -> list[WordWeight]:
    """The matrices; none of them where one has another kernel."""
    found = [matrix for matrix in matrices if type(matrix) is WordWeight]
    return found if len(found) == len(matrices) else []

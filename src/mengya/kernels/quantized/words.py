"""Codes of few bits packed into 32-bit words, in the order that the Triton kernels unpack them.

A word holds P = 32 / bits codes of one output, RUN columns apart: of P * RUN neighbouring columns, word k
holds columns k, k + RUN, k + 2 RUN and so on. So code j of neighbouring words belongs to neighbouring
columns, whose inputs are read together, and all codes of a word share a scale.
Shapes: O outputs, I inputs, G groups of columns, W words of an output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.quantized.weight import QuantizedWeight

_LONGEST_RUN = 16


@dataclass(frozen=True, slots=True)
class WordLayout:
    """How codes lie in words.

    Attributes:
        bits: of a code: 2, 4 or 8. Codes of 3 bits take 4: ten of them in a word would leave its
            columns in no even order.
        run: a power of two; 0: this group size has no layout.
        words_per_group: words that share a scale; all of an output's where its group is the row.
    """

    bits: int
    run: int
    words_per_group: int

    @property
    def codes(self) -> int:
        """Codes of a word."""
        return 32 // self.bits

    @property
    def columns(self) -> int:
        """Columns that `run` neighbouring words hold."""
        return self.codes * self.run


def word_layout(bits: int, groups: int, inputs: int) -> WordLayout:
    """The layout with the longest run: groups of less than 16, 8 or 4 inputs (2, 4, 8 bits) have none."""
    bits = 4 if bits == 3 else bits
    codes, run = 32 // bits, _LONGEST_RUN
    if groups == 1:
        return WordLayout(bits, run, run * -(-inputs // (codes * run)))
    group_size = inputs // groups
    while run and group_size % (codes * run):
        run //= 2
    return WordLayout(bits, run, group_size // codes)


def pack_words(codes_OI: Tensor, layout: WordLayout) -> Tensor:
    """uint8 codes as int32 words, [O, W]; columns beyond I are zeros."""
    padded = F.pad(codes_OI, (0, -codes_OI.shape[1] % layout.columns))
    parts = padded.unflatten(1, (-1, layout.codes, layout.run)).to(torch.int64)
    shifts = layout.bits * torch.arange(layout.codes, device=codes_OI.device)
    return (
        (parts << shifts[:, None]).sum(2).flatten(1).to(torch.int32)
    )  # the highest bit is the sign


def sorted_columns(weight: QuantizedWeight) -> tuple[QuantizedWeight, Tensor | None]:
    """`weight` with the columns of a group side by side, and the inputs in that order, int64 [I].

    None where they are. Groups of unequal size stay as they are: their `group_I` is kept.
    """
    if weight.group_I is None:
        return weight, None
    order = weight.group_I.long().argsort(stable=True)
    groups = weight.scale_OG.shape[1]
    sizes = torch.bincount(weight.group_I.long(), minlength=groups)
    if (sizes != len(order) // groups).any():
        return weight, None
    codes = weight.codes_OI[:, order]
    return QuantizedWeight(weight.scheme, codes, weight.scale_OG, weight.zero_OG), order

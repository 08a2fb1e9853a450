"""What every packed matrix offers, and the reference: weights made full when they are packed.

Shapes: O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.kernels.quantized.weight import QuantizedWeight


class PackedWeight(nn.Module):
    """A matrix ready to multiply by: `forward(x)` is `F.linear(x, weight)`, [..., I] -> [..., O]."""

    in_features: int
    out_features: int

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weights, [O, I]."""
        raise NotImplementedError

    def merge(self, others: Sequence[PackedWeight]) -> PackedWeight | None:
        """This and the others as one matrix, outputs side by side; they then share its memory.

        None where that is not possible: other scheme, other inputs, another order of the columns.
        """
        del others
        return None


class Int8Rows(PackedWeight):
    """Codes in int8 with a scale for each row.

    Attributes:
        codes_OI: int8, -128 .. 127.
        scale_O: of the rows.
    """

    def _store(self, codes_OI: Tensor, scale_O: Tensor) -> None:
        self.out_features, self.in_features = codes_OI.shape
        self.register_buffer("codes_OI", codes_OI)
        self.register_buffer("scale_O", scale_O)
        self.codes_OI: Tensor
        self.scale_O: Tensor

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        return (self.codes_OI.float() * self.scale_O[:, None].float()).to(dtype)

    def _joined(self, others: Sequence[PackedWeight]) -> Self:
        """This and the others, whose inputs are the same, as one matrix of their class."""
        parts = [self, *cast(Sequence[Self], others)]
        joined = type(self).__new__(type(self))
        nn.Module.__init__(joined)
        codes_OI, pieces = share_rows([part.codes_OI for part in parts])
        joined._store(codes_OI, torch.cat([part.scale_O for part in parts]))
        for part, piece in zip(parts, pieces, strict=True):
            part._store(piece, part.scale_O)
        return joined


class DequantizedWeight(PackedWeight):
    """The reference: full weights, activations as they are. As large and as slow as a full layer."""

    def __init__(self, weight: QuantizedWeight, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight.dequantize(dtype))
        self.weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        return self.weight.to(dtype)


def share_rows(parts: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
    """The parts below one another, and each as a piece of that."""
    merged = torch.cat(list(parts))
    return merged, merged.split([len(part) for part in parts])

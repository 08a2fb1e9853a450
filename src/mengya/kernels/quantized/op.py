"""Products with a quantized matrix, by the fastest kernel that the device has for its scheme.

`pack` turns a `QuantizedWeight` into the layout of a kernel; the result is a module, so that moving it,
counting its bytes and sharing it work as for any layer.
"""

from __future__ import annotations

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


class DequantizedWeight(PackedWeight):
    """The reference: weights made full when they are packed, activations as they are."""

    def __init__(self, weight: QuantizedWeight, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight.dequantize(dtype))
        self.weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        return self.weight.to(dtype)


def pack(weight: QuantizedWeight, dtype: torch.dtype) -> PackedWeight:
    """`weight` on its device, for inputs of `dtype`."""
    return DequantizedWeight(weight, dtype)

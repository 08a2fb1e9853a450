"""A quantized matrix: small numbers, and the scales that turn them back into weights.

Takes and gives tensors; knows no layer, no file layout and no way to choose the numbers. It is what a
solver (mengya.quantization) gives, a layout on disk (models.quantized.layouts) holds, and `op` multiplies by.

Shapes: O outputs, I inputs, G groups of inputs that share a scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Number = Literal["int", "float8", "ternary"]
Activations = Literal["full", "int8", "float8", "int8_outliers"]


@dataclass(frozen=True)
class Scheme:
    """How the weights of a layer are stored, and in what its inputs are multiplied.

    Attributes:
        number: `int` of `bits` bits; `float8` (e4m3, 8 bits); `ternary` (-1, 0, 1; BitNet b1.58, 2 bits).
        bits: 2, 3, 4 or 8.
        group_size: inputs that share a scale; None: all of a row (ternary: all of the matrix).
        symmetric: no zero points: the codes are centred on 2^(bits - 1).
        activations: `full`: as they are. `int8`, `float8`: rounded at run time with a scale for each token.
            `int8_outliers`: as int8, but inputs with a number above 6 in magnitude stay as they are
            (LLM.int8, Dettmers et al. 2022, arXiv:2208.07339).
    """

    bits: int
    group_size: int | None = None
    symmetric: bool = True
    number: Number = "int"
    activations: Activations = "full"

    def groups(self, inputs: int) -> int:
        """Number of groups in a row of that many inputs, which `group_size` divides."""
        return 1 if self.group_size is None else inputs // self.group_size


@dataclass(frozen=True)
class QuantizedWeight:
    """weight[o, i] = scale[o, g] * (codes[o, i] - zero[o, g]), where g is the group of column i.

    Attributes:
        codes_OI: uint8, 0 .. 2^bits - 1 (ternary: 0, 1, 2); float8_e4m3fn for `float8`, with no zero.
        scale_OG: fp32.
        zero_OG: uint8; 2^(bits - 1) everywhere if symmetric (ternary: 1). None for `float8`.
        group_I: int32, the group of each column; None: column i is of group i // group_size. With
            activation order (GPTQ's desc_act) the columns of a group are not neighbours.
    """

    scheme: Scheme
    codes_OI: Tensor
    scale_OG: Tensor
    zero_OG: Tensor | None
    group_I: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        return self.codes_OI.shape

    def to(self, device: torch.device | str) -> QuantizedWeight:
        """The same tensors there."""
        zero = None if self.zero_OG is None else self.zero_OG.to(device)
        group = None if self.group_I is None else self.group_I.to(device)
        codes, scale = self.codes_OI.to(device), self.scale_OG.to(device)
        return QuantizedWeight(self.scheme, codes, scale, zero, group)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights, [O, I]; computed in fp32."""
        codes = self.codes_OI.float()
        if self.group_I is not None:
            columns = self.group_I.long()
            scale = self.scale_OG[:, columns]
            zero = 0 if self.zero_OG is None else self.zero_OG[:, columns].float()
            return (scale * (codes - zero)).to(dtype)
        grouped_OGC = codes.unflatten(1, (self.scale_OG.shape[1], -1))
        zero = 0 if self.zero_OG is None else self.zero_OG.float()[..., None]
        return (self.scale_OG[..., None] * (grouped_OGC - zero)).flatten(1).to(dtype)

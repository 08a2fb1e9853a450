"""Products with codes of 8 bits and one scale a row on a CPU, inputs as they are, by a kernel of PyTorch.

As precise as cpu_int4, which does 8 bits too, in groups; with one scale a row this is up to 1.5 times faster.
Shapes: M rows, O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mengya.kernels.quantized.cpu_int4 import full_dtype
from mengya.kernels.quantized.packed import Int8Rows, PackedWeight
from mengya.kernels.quantized.weight import QuantizedWeight

_MULTIPLY = torch.ops.aten._weight_int8pack_mm.default
_MULTIPLE = 32  # inputs
_FEW_ROWS = 16  # of which the kernel is faster than full weights


def is_supported(weight: QuantizedWeight) -> bool:
    """Symmetric integers of 8 bits on a CPU with AVX2 or AVX-512, one scale a row.

    Of other numbers of inputs the kernel of PyTorch 2.13 reads beyond the last row, and may crash.
    """
    scheme = weight.scheme
    plain = scheme.number == "int" and scheme.bits == 8 and scheme.symmetric
    vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    on_cpu = weight.codes_OI.device.type == "cpu"
    fits = weight.scale_OG.shape[1] == 1 and weight.shape[1] % _MULTIPLE == 0
    return plain and vectors and on_cpu and fits


class Int8Weight(Int8Rows):
    """
    Attributes:
        codes_OI: int8, -128 .. 127.
        scale_O: bf16.
    """

    def __init__(self, weight: QuantizedWeight) -> None:
        super().__init__()
        codes_OI = (weight.codes_OI ^ 0x80).view(torch.int8)  # less 128
        self._store(codes_OI.contiguous(), weight.scale_OG[:, 0].to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        x_MI = x.reshape(-1, self.in_features)
        if x_MI.shape[0] > _FEW_ROWS:
            dtype = full_dtype()
            out_MO = (x_MI.to(dtype) @ self.codes_OI.to(dtype).t()).float() * self.scale_O.float()
        else:
            x_MI = x_MI.to(torch.bfloat16).contiguous()
            out_MO = _MULTIPLY(x_MI, self.codes_OI, self.scale_O)
        return out_MO.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def merge(self, others: Sequence[PackedWeight]) -> PackedWeight | None:
        if not all(type(p) is Int8Weight and p.in_features == self.in_features for p in others):
            return None
        return self._joined(others)

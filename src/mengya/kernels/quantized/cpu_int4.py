"""Products with codes of 2, 3, 4 or 8 bits on a CPU, inputs as they are, by PyTorch's kernel for 4 bits.

The kernel reads 4 bits a code and unpacks them in registers: decoding is bound by the bytes of the weights. 2
and 3 bits take 4. A code of 8 bits is two of 4, code = 16 high + low, in one product of twice the inputs.
It multiplies in bf16 and adds in fp32; so inputs, scales and results are rounded to bf16, by 0.2 % at
most, where 4 bits are off by some 7 %, 8 by 0.5 %. The same in fp32 is 20 times slower in PyTorch 2.13.
Many rows (prompts) are bound by arithmetic: the weights are unpacked to bf16 for a full product.
Shapes: M rows, O outputs, I inputs, G groups, P planes of 4 bits, B blocks of 64 outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.quantized.packed import PackedWeight, share_rows
from mengya.kernels.quantized.weight import QuantizedWeight
from mengya.kernels.quantized.words import sorted_columns

_MULTIPLY = torch.ops.aten._weight_int4pack_mm_for_cpu.default
_BLOCK = 64  # outputs are padded to a multiple
_GROUPS = (256, 128, 64, 32)  # group sizes of the kernel
_FEW_ROWS = 64  # of which the kernel is faster than unpacking; half as many with two planes


def is_supported(weight: QuantizedWeight) -> bool:
    """Integers on a CPU with AVX2 or AVX-512, in groups of a multiple of 32 inputs or of a row."""
    if weight.codes_OI.device.type != "cpu" or weight.scheme.number == "float8" or not _layout():
        return False
    weight, _ = sorted_columns(weight)
    groups, inputs = weight.scale_OG.shape[1], weight.shape[1]
    return weight.group_I is None and (groups == 1 or (inputs // groups) % _GROUPS[-1] == 0)


class Int4Weight(PackedWeight):
    """
    Attributes:
        codes: uint8 [O, P * I / 2], the layout of the kernel; O and I are padded to its blocks.
        scale_zero: bf16 [P * G, O, 2]: weight = (code - 8) * scale + zero.
        order_I: the order in which the columns are stored; None: their own.
    """

    def __init__(self, weight: QuantizedWeight) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        weight, order_I = sorted_columns(weight)
        assert weight.zero_OG is not None  # integers have zero points
        O, I = _up(self.out_features, _BLOCK), _up(self.in_features, _GROUPS[-1])
        self.inputs = I
        # Codes of 2 and 3 bits move to the middle, where zero points of 8 cost no rounding.
        middle = 1 if weight.scheme.number == "ternary" else 1 << (weight.scheme.bits - 1)
        shift = max(8 - middle, 0)
        codes = weight.codes_OI.int() + shift
        codes = F.pad(codes, (0, I - self.in_features, 0, O - self.out_features))
        scale_OG = weight.scale_OG.float().expand(self.out_features, -1)
        zero_OG = weight.zero_OG.float().expand_as(scale_OG) + shift
        size = I // scale_OG.shape[1]
        self.group_size = next(number for number in _GROUPS if size % number == 0)
        self.planes = 2 if weight.scheme.bits == 8 else 1
        parts = [(codes, scale_OG, scale_OG * (8 - zero_OG))]
        if self.planes == 2:
            high = codes >> 4, scale_OG * 16, torch.zeros_like(scale_OG)
            parts = [high, (codes & 15, scale_OG, scale_OG * (136 - zero_OG))]
        pairs = [torch.stack((scale, zero), 2).repeat_interleave(size // self.group_size, 1)
                 for _, scale, zero in parts]  # fmt: skip
        pair = F.pad(torch.cat(pairs, 1), (0, 0, 0, 0, 0, O - self.out_features))
        packed = _pack(torch.cat([part for part, _, _ in parts], 1))
        self._store(packed, pair.transpose(0, 1).to(torch.bfloat16).contiguous(), order_I)
        self.groups = len(self.scale_zero) // self.planes
        self.has_zeros = bool(self.scale_zero[-self.groups :, :, 1].any())

    def _store(self, codes: Tensor, scale_zero: Tensor, order_I: Tensor | None) -> None:
        self.register_buffer("codes", codes)
        self.register_buffer("scale_zero", scale_zero)
        self.register_buffer("order_I", order_I)
        self.codes: Tensor
        self.scale_zero: Tensor
        self.order_I: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        x_MI = x.reshape(-1, self.in_features)
        order_I = self._buffers["order_I"]  # attributes of a module are slow
        if order_I is not None:
            x_MI = x_MI.index_select(1, order_I)
        if x_MI.shape[0] * self.planes > _FEW_ROWS:
            weight_IO = self._unpack_IO().to(full_dtype())
            out_MO = x_MI.to(weight_IO.dtype) @ weight_IO
        else:
            out_MO = self._multiply(x_MI.to(torch.bfloat16))
        return out_MO.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def _multiply(self, x_MI: Tensor) -> Tensor:
        if self.inputs > self.in_features:
            x_MI = F.pad(x_MI, (0, self.inputs - self.in_features))
        if self.planes == 2:
            x_MI = torch.cat((x_MI, x_MI), 1)
        codes, scale_zero = self._buffers["codes"], self._buffers["scale_zero"]
        out_MO = _MULTIPLY(x_MI.contiguous(), codes, self.group_size, scale_zero)
        return out_MO[:, : self.out_features] if out_MO.shape[1] > self.out_features else out_MO

    def _unpack_IO(self) -> Tensor:
        """The weights in bf16, transposed, columns in the stored order."""
        half = _layout() // 2
        packed_IBO = self.codes.view(-1, self.planes * self.inputs, half).transpose(0, 1)
        codes_IBO = packed_IBO.new_empty(*packed_IBO.shape[:2], 2 * half)
        torch.bitwise_and(packed_IBO, 15, out=codes_IBO[:, :, :half])
        torch.bitwise_right_shift(packed_IBO, 4, out=codes_IBO[:, :, half:])
        codes_IO, middle = codes_IBO.flatten(1), 8
        if self.planes == 2:
            high_IO, low_IO = codes_IO.chunk(2)
            codes_IO, middle = high_IO.mul_(16).add_(low_IO), 136
        scale_GO, zero_GO = self.scale_zero[-self.groups :].unbind(2)
        codes_IO = codes_IO.to(torch.bfloat16).sub_(middle)
        weight_IO = codes_IO.unflatten(0, (self.groups, -1)).mul_(scale_GO[:, None].contiguous())
        if self.has_zeros:
            weight_IO.add_(zero_GO[:, None].contiguous())
        return weight_IO.flatten(0, 1)[: self.in_features, : self.out_features]

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        weight_OI = self._unpack_IO().t().to(dtype)
        return weight_OI if self.order_I is None else weight_OI[:, self.order_I.argsort()]

    def merge(self, others: Sequence[PackedWeight]) -> PackedWeight | None:
        if not all(type(other) is Int4Weight and self._same_columns(other) for other in others):
            return None
        parts = [self, *cast(Sequence[Int4Weight], others)]
        merged = Int4Weight.__new__(Int4Weight)
        PackedWeight.__init__(merged)
        merged.out_features = sum(part.out_features for part in parts)
        merged.in_features, merged.inputs = self.in_features, self.inputs
        merged.group_size, merged.planes = self.group_size, self.planes
        merged.groups, merged.has_zeros = self.groups, any(part.has_zeros for part in parts)
        codes, pieces = share_rows([part.codes for part in parts])
        merged._store(codes, torch.cat([part.scale_zero for part in parts], 1), None)
        for part, piece in zip(parts, pieces, strict=True):
            part._store(piece, part.scale_zero, None)
        return merged

    def _same_columns(self, other: Int4Weight) -> bool:
        """Whether both may be one matrix: outputs in full blocks, one layout, no order of columns."""
        mine, its = (
            (part.in_features, part.group_size, part.planes, part.out_features % _BLOCK)
            for part in (self, other)
        )
        return mine == its and mine[-1] == 0 and self.order_I is None and other.order_I is None


def _up(number: int, multiple: int) -> int:
    return number + -number % multiple


def _pack(codes_OI: Tensor) -> Tensor:
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes_OI, 1)


@cache
def full_dtype() -> torch.dtype:
    """In which full weights are multiplied: bf16 where the processor does, which is twice as fast."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


@cache
def _layout() -> int:
    """How many outputs the layout of the kernel keeps together; 0: no vectorized kernel, or another layout.

    Of so many, byte i holds output i and, in its high half, output i + half as many.
    """
    size = {"AVX512": 64, "AVX2": 32}.get(torch.backends.cpu.get_cpu_capability(), 0)
    codes = torch.randint(0, 16, (_BLOCK, 8), dtype=torch.int32)
    packed = _pack(codes).view(-1, 8, size // 2 or 1)
    found = torch.cat((packed & 15, packed >> 4), 2).transpose(0, 1).flatten(1)
    return size if torch.equal(found, codes.t().to(torch.uint8)) else 0

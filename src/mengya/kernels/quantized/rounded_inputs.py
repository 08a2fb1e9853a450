"""Products whose inputs are rounded as well: to int8 or float8 with a scale for each token (dynamic).

Fast where inputs and weights are 8 bits and a row of the weights has one scale (the usual W8A8, and
ternary): integer products, or float8 tensor cores. Every other scheme rounds its inputs for the
kernel of its weights.
Shapes: M tokens, O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.quantized.packed import Int8Rows, PackedWeight
from mengya.kernels.quantized.weight import QuantizedWeight, Scheme

OUTLIER = 6.0  # LLM.int8: inputs with a number of this magnitude stay as they are
_LARGEST = 448.0  # of float8_e4m3fn
_CUDA_ROWS = 32  # the integer product on CUDA wants more than 16
_SMALLEST = 1e-12  # scale, for rows of zeros


def round_int8(x_MI: Tensor, levels: float) -> tuple[Tensor, Tensor]:
    """Codes and fp32 scales, [M, I] int8 and [M, 1]: the largest magnitude of a row is `levels` steps."""
    largest = torch.linalg.vector_norm(x_MI, float("inf"), 1, keepdim=True, dtype=torch.float32)
    scale = largest.div_(levels).clamp_(min=_SMALLEST)
    return (x_MI / scale).round_().clamp_(-128, 127).to(torch.int8), scale


def round_float8(x_MI: Tensor) -> tuple[Tensor, Tensor]:
    """The same in float8_e4m3fn."""
    largest = torch.linalg.vector_norm(x_MI, float("inf"), 1, keepdim=True, dtype=torch.float32)
    scale = largest.div_(_LARGEST).clamp_(min=_SMALLEST)
    return (x_MI / scale).clamp_(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn), scale


def int8_levels(scheme: Scheme) -> float:
    """127.5, as compressed-tensors has it; 127 in LLM.int8 (bitsandbytes) and BitNet b1.58."""
    return 127.0 if scheme.number == "ternary" or scheme.activations == "int8_outliers" else 127.5


class RoundedInputs(PackedWeight):
    """The reference: inputs rounded and made full again, then `inner`'s product."""

    def __init__(self, scheme: Scheme, inner: PackedWeight) -> None:
        super().__init__()
        self.out_features, self.in_features = inner.out_features, inner.in_features
        self.inner, self.scheme = inner, scheme

    def forward(self, x: Tensor) -> Tensor:
        x_MI = x.reshape(-1, self.in_features)
        if self.scheme.activations == "float8":
            codes, scale = round_float8(x_MI)
            rounded = (codes.float() * scale).to(x.dtype)
        else:
            stays = torch.zeros_like(x_MI, dtype=torch.bool)
            if self.scheme.activations == "int8_outliers":
                stays = x_MI.abs() >= OUTLIER
            codes, scale = round_int8(x_MI.masked_fill(stays, 0), int8_levels(self.scheme))
            rounded = torch.where(stays.any(0), x_MI, (codes.float() * scale).to(x.dtype))
        return self.inner(rounded).view(*x.shape[:-1], self.out_features)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        return self.inner.dequantize(dtype)


class Int8Product(Int8Rows):
    """int8 times int8, added in int32: exact but for the rounding of the inputs.

    Columns that LLM.int8 leaves as they are go through full weights: those columns alone on a CPU, all of
    them on CUDA, where asking which they are would wait for the device.

    Attributes:
        codes_OI: int8, less the zero point.
        scale_O: fp32.
    """

    def __init__(self, weight: QuantizedWeight) -> None:
        super().__init__()
        assert weight.zero_OG is not None  # integers have zero points
        self.scheme, outputs = weight.scheme, weight.shape[0]
        codes_OI = weight.codes_OI.to(torch.int16) - weight.zero_OG.expand(outputs, 1)
        scale_O = weight.scale_OG.float().expand(outputs, 1)[:, 0]
        self._store(codes_OI.to(torch.int8).contiguous(), scale_O.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        x_MI = x.reshape(-1, self.in_features)
        if self.scheme.activations == "int8_outliers":
            out_MO = self._with_outliers(x_MI)
        else:
            codes, scale = round_int8(x_MI, int8_levels(self.scheme))
            out_MO = self._multiply(codes).mul_(scale).mul_(self.scale_O)
        return out_MO.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def _multiply(self, codes_MI: Tensor) -> Tensor:
        """Sums of products of codes, fp32."""
        M = len(codes_MI)
        if codes_MI.is_cuda and M < _CUDA_ROWS:
            codes_MI = F.pad(codes_MI, (0, 0, 0, _CUDA_ROWS - M))
        return torch.ops.aten._int_mm(codes_MI, self.codes_OI.t())[:M].float()

    def _with_outliers(self, x_MI: Tensor) -> Tensor:
        stays_MI = x_MI.abs() >= OUTLIER
        codes, scale = round_int8(x_MI.masked_fill(stays_MI, 0), int8_levels(self.scheme))
        stays_I = stays_MI.any(0)
        out_MO = self._multiply(codes.masked_fill_(stays_I, 0)).mul_(scale)
        if x_MI.is_cuda:
            left = x_MI * stays_I
            out_MO += F.linear(left, self.codes_OI.to(x_MI.dtype))
        elif stays_I.any():
            columns = stays_I.nonzero()[:, 0]
            out_MO += F.linear(x_MI[:, columns].float(), self.codes_OI[:, columns].float())
        return out_MO.mul_(self.scale_O)

    def merge(self, others: Sequence[PackedWeight]) -> PackedWeight | None:
        if not all(type(part) is Int8Product and self._same_inputs(part) for part in others):
            return None
        merged = self._joined(others)
        merged.scheme = self.scheme
        return merged

    def _same_inputs(self, other: Int8Product) -> bool:
        return other.in_features == self.in_features and other.scheme == self.scheme


class Float8Product(PackedWeight):
    """float8 times float8 on the tensor cores of CUDA, added in fp32; scales of rows on both sides.

    Attributes:
        codes_OI: float8_e4m3fn.
        scale_1O: fp32.
    """

    def __init__(self, weight: QuantizedWeight) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("codes_OI", weight.codes_OI.contiguous())
        self.register_buffer("scale_1O", weight.scale_OG.float().reshape(1, -1).contiguous())
        self.codes_OI: Tensor
        self.scale_1O: Tensor

    def forward(self, x: Tensor) -> Tensor:
        codes, scale = round_float8(x.reshape(-1, self.in_features))
        out_MO = torch.ops.aten._scaled_mm(
            codes, self.codes_OI.t(), scale, self.scale_1O, out_dtype=torch.bfloat16
        )
        return out_MO.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        return (self.codes_OI.float() * self.scale_1O.t()).to(dtype)


def pack_product(weight: QuantizedWeight) -> PackedWeight | None:
    """A product of 8 bits on both sides; None where there is none."""
    if _has_float8_product(weight):
        return Float8Product(weight)
    return Int8Product(weight) if _has_int8_product(weight) else None


def full_inputs(weight: QuantizedWeight) -> QuantizedWeight:
    """`weight` for inputs as they are."""
    return replace(weight, scheme=replace(weight.scheme, activations="full"))


def _has_int8_product(weight: QuantizedWeight) -> bool:
    """Codes that fit int8 with one scale a row; a CPU that multiplies them without saturation (VNNI)."""
    scheme = weight.scheme
    fits = scheme.number != "float8" and scheme.symmetric and weight.scale_OG.shape[1] == 1
    if not fits or scheme.activations not in ("int8", "int8_outliers"):
        return False
    if weight.codes_OI.device.type == "cpu":
        return torch.cpu._is_vnni_supported()
    return weight.codes_OI.is_cuda and weight.shape[0] % 8 == 0 and weight.shape[1] % 8 == 0


def _has_float8_product(weight: QuantizedWeight) -> bool:
    scheme, codes = weight.scheme, weight.codes_OI
    rows = scheme.number == scheme.activations == "float8" and weight.scale_OG.shape[1] == 1
    aligned = codes.shape[0] % 16 == 0 and codes.shape[1] % 16 == 0
    return (
        rows
        and aligned
        and codes.is_cuda
        and torch.cuda.get_device_capability(codes.device) >= (8, 9)
    )

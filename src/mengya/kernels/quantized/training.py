"""Products with weights that are rounded at every call; gradients pass the rounding straight through.

Takes full weights and a `Scheme`; gives the products, or the codes and scales as a `QuantizedWeight`: both
come of the same functions, so what is trained is what is stored. Straight-through: Bengio et al. 2013,
arXiv:1308.3432. A stack of matrices [..., O, I] is as many matrices, each with its own scales.

Ternary weights are those of BitNet b1.58 (Ma et al. 2024, arXiv:2402.17764) in the arithmetic of
transformers' AutoBitLinear, so that the codes are the same to the last one:

    weights: round(w / m) in -1 .. 1, times m = mean |w| of the matrix
    inputs:  round(127 x / a) in -128 .. 127, times a / 127, a = max |x| of the token

Shapes: O outputs, I inputs, G groups, C inputs of a group.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.quantized.weight import QuantizedWeight, Scheme

_SMALLEST = 1e-5  # of the mean of a matrix, and of the largest input of a token, as in transformers
_INPUTS = 128.0  # codes of inputs are multiplied as fractions, whose sums fp16 can hold
_SHARES = (1.0, 0.85, 0.7, 0.55)  # of the scale by the largest weight; more gain 1 % of the error
# Whatever dtype a layout gives them, scales stay what they are: bf16 numbers that fp16 holds as well.
_SMALLEST_SCALE, _LARGEST_SCALE = 2.0**-17, 65280.0


def linear(x: Tensor, weight_OI: Tensor, bias: Tensor | None, scheme: Scheme) -> Tensor:
    """`F.linear` with the rounded weight; ternary: and rounded inputs."""
    if scheme.number == "ternary":
        return _ternary_linear(x, weight_OI, bias)
    return F.linear(x, rounded(weight_OI, scheme), bias)


def rounded(weight: Tensor, scheme: Scheme) -> Tensor:
    """The rounded weights in the shape and dtype of `weight`, [..., O, I]."""
    if scheme.number == "ternary":
        codes, inverse = ternary_codes(weight.detach())
        values = codes / inverse
    else:
        codes, scale = _int_codes(weight.detach(), scheme)
        values = (codes * scale).flatten(-2)
    return _straight_through(weight, values.to(weight.dtype))


def rounded_inputs(x: Tensor) -> Tensor:
    """Inputs of 8 bits with a scale for each token, in the dtype of x."""
    codes, inverse = _input_codes(x.detach())
    return _straight_through(x, (codes / inverse).to(x.dtype))


@torch.no_grad()
def quantize(weight: Tensor, scheme: Scheme) -> list[QuantizedWeight]:
    """What is multiplied by: of each matrix of a stack [E, O, I], or of the one of [O, I]."""
    if scheme.number == "ternary":
        codes, inverse = ternary_codes(weight)
        scale, center = (1 / inverse).expand(*weight.shape[:-1], 1), 1
    else:
        grouped, scales = _int_codes(weight, scheme)
        codes, scale, center = grouped.flatten(-2), scales.squeeze(-1), 2 ** (scheme.bits - 1)
    codes = (codes + center).to(torch.uint8)
    zero = torch.full(scale.shape, center, dtype=torch.uint8, device=weight.device)
    parts = (t.reshape(-1, *t.shape[-2:]) for t in (codes, scale, zero))
    return [
        QuantizedWeight(scheme, codes_OI.clone(), scale_OG.clone(), zero_OG.clone())
        for codes_OI, scale_OG, zero_OG in zip(*parts, strict=True)
    ]


def ternary_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """-1, 0 or 1 in fp32, [..., O, I], and what weights were multiplied by, [..., 1, 1]."""
    weight = weight.float()
    size = weight.abs()
    mean = size.mean() if weight.ndim == 2 else size.mean((-2, -1), keepdim=True)
    inverse = 1.0 / mean.clamp(min=_SMALLEST)
    return (weight * inverse).round().clamp(-1, 1), inverse.view(*weight.shape[:-2], 1, 1)


def _input_codes(x: Tensor) -> tuple[Tensor, Tensor]:
    """-128 .. 127 in fp32, [..., I], and what inputs were multiplied by, [..., 1]."""
    x = x.float()
    inverse = 127 / x.abs().amax(-1, keepdim=True).clamp(min=_SMALLEST)
    return (x * inverse).round().clamp(-128, 127), inverse


def _ternary_linear(x: Tensor, weight_OI: Tensor, bias: Tensor | None) -> Tensor:
    """The product of codes, which half precision holds exactly, scaled afterwards in fp32."""
    codes_OI, weight_inverse = ternary_codes(weight_OI.detach())
    input_codes, input_inverse = _input_codes(x.detach())
    a = _Rounded.apply(x, (input_codes / _INPUTS).to(x.dtype), input_inverse / _INPUTS)
    b = _Rounded.apply(weight_OI, codes_OI.to(weight_OI.dtype), weight_inverse)
    product = F.linear(a, b)
    scale = _INPUTS / (input_inverse * weight_inverse.flatten())
    out = (product * scale).to(product.dtype)
    return out if bias is None else out + bias.to(out.dtype)


def _int_codes(weight: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Integers in fp32, [..., O, G, C], and their scales, [..., O, G, 1]."""
    grouped = weight.float().unflatten(-1, (scheme.groups(weight.shape[-1]), -1))
    scale = _scales(grouped, scheme.bits)
    return _nearest(grouped, scale, scheme.bits), scale


def _scales(grouped: Tensor, bits: int) -> Tensor:
    """Scales of little squared error, [..., O, G, 1], as bf16 and fp16 hold them.

    The largest weight of a group, whatever its sign, is put on the side that has one code more: the scale
    may be negative. Of some shares of that scale the best is taken, and fitted once to its codes.
    """
    extreme = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True)) / -(2 ** (bits - 1))
    best = extreme
    least = torch.full_like(extreme, torch.inf)
    for share in _SHARES:
        codes = _nearest(grouped, extreme * share, bits)
        error = (grouped - codes * (extreme * share)).square().sum(-1, keepdim=True)
        fit = (grouped * codes).sum(-1, keepdim=True) / codes.square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, fit, best), torch.minimum(error, least)
    best = best.nan_to_num(0.0).clamp(-_LARGEST_SCALE, _LARGEST_SCALE)
    best = torch.where(best.abs() < _SMALLEST_SCALE, _SMALLEST_SCALE, best)
    # By its bits, as the compiler drops a rounding to bf16 that is at once undone.
    return ((best.view(torch.int32) + (1 << 15)) & -(1 << 16)).view(torch.float32)


def _nearest(grouped: Tensor, scale: Tensor, bits: int) -> Tensor:
    largest = 2 ** (bits - 1)
    divisor = scale.masked_fill(scale == 0, 1.0)  # of a group of zeros
    return (grouped / divisor).round().clamp(-largest, largest - 1)


def _straight_through(full: Tensor, values: Tensor) -> Tensor:
    return _Rounded.apply(full, values, None)  # pyright: ignore[reportReturnType]


class _Rounded(torch.autograd.Function):
    """`values` in the place of `full`; the gradient of `full` is that of `values`, times `factor`."""

    @staticmethod
    def forward(ctx: Any, full: Tensor, values: Tensor, factor: Tensor | None) -> Tensor:
        ctx.save_for_backward(factor)
        ctx.dtype = full.dtype
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (factor,) = ctx.saved_tensors
        gradient = gradients[0] if factor is None else gradients[0] * factor
        return gradient.to(ctx.dtype), None, None

"""Scales and zero points of groups of weights, and rounding to them.

Takes weights; gives the scales under which rounding to nearest loses least. Knows no layer and no inputs
but an importance of each column. Shapes: O outputs, G groups, C columns of a group, I = G * C inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mengya.kernels.quantized.weight import QuantizedWeight, Scheme

ScaleRule = Literal["minmax", "mse"]
_SIGNED_BITS = 4  # with more, a step is too small to matter
_SHRINK = tuple(1 - step / 32 for step in range(17))  # of the range, down to a half
FLOAT8 = torch.float8_e4m3fn
_FLOAT8_MAX = 448.0


@dataclass(frozen=True)
class GridRule:
    """How scales are chosen.

    Attributes:
        scheme: what is rounded to.
        scales: `minmax`: all of the range. `mse`: the range shrunk so far as it lowers the squared error; of
            symmetric codes it also has a sign.
        dtype: that the scales are stored in; they are rounded to it here, so that a solver sees what a
            reader will.
    """

    scheme: Scheme
    scales: ScaleRule = "mse"
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Grid:
    """scale_OG, zero_OG: fp32; a code q stands for scale * (q - zero), 0 <= q <= top."""

    scale_OG: Tensor
    zero_OG: Tensor
    top: int

    def codes(self, w_OGC: Tensor) -> Tensor:
        """The nearest codes, fp32."""
        scaled = torch.addcdiv(self.zero_OG[..., None], w_OGC, self.scale_OG[..., None])
        return scaled.round_().clamp_(0, self.top)

    def weights(self, codes_OGC: Tensor) -> Tensor:
        return (codes_OGC - self.zero_OG[..., None]).mul_(self.scale_OG[..., None])


def find_grid(w_OGC: Tensor, rule: GridRule, importance_GC: Tensor | None = None) -> Grid:
    """The grid of every group.

    Args:
        importance_GC: of each column's squared error, for `mse`; None: all are equal.
    """
    best = _grid(w_OGC, rule, 1.0)
    if rule.scales == "minmax":
        return best
    scale_OG, zero_OG = best.scale_OG, best.zero_OG
    error_OG = _error(w_OGC, best, importance_GC)
    signed = rule.scheme.symmetric and rule.scheme.bits <= _SIGNED_BITS
    for shrink in _SHRINK if signed else _SHRINK[1:]:
        grid = _signed_grid(w_OGC, rule, shrink) if signed else _grid(w_OGC, rule, shrink)
        error = _error(w_OGC, grid, importance_GC)
        better = error < error_OG
        error_OG = torch.where(better, error, error_OG)
        scale_OG = torch.where(better, grid.scale_OG, scale_OG)
        zero_OG = torch.where(better, grid.zero_OG, zero_OG)
    return Grid(scale_OG, zero_OG, best.top)


def _grid(w_OGC: Tensor, rule: GridRule, shrink: float) -> Grid:
    """The grid over `shrink` of each group's range."""
    top = 2**rule.scheme.bits - 1
    low, high = w_OGC.aminmax(dim=-1)
    low, high = low.clamp(max=0) * shrink, high.clamp(min=0) * shrink
    if rule.scheme.symmetric:
        # The codes reach half a step further down than up: the range is centred between the two.
        scale = stored(torch.maximum(-low, high) * (2 / top), rule.dtype)
        return Grid(scale, torch.full_like(scale, (top + 1) // 2), top)
    scale = stored((high - low) / top, rule.dtype)
    return Grid(scale, (-low / scale).round_().clamp_(0, top), top)


def _signed_grid(w_OGC: Tensor, rule: GridRule, shrink: float) -> Grid:
    """Symmetric codes reach a step further down than up; a scale below 0 turns that side around.

    With 3 bits on real weights the error is 7 % smaller than with scales above 0, with 4 bits 5 %.
    """
    half = 2 ** (rule.scheme.bits - 1)
    low, high = w_OGC.aminmax(dim=-1)
    scale = stored(torch.where(high > -low, -high, -low) * (shrink / half), rule.dtype)
    return Grid(scale, torch.full_like(scale, half), 2 * half - 1)


def stored(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Scales as a file of `dtype` holds them, in fp32; that of a group of zeros is 1."""
    rounded = scale.to(dtype).float()
    return torch.where(rounded != 0, rounded, 1.0)


def _error(w_OGC: Tensor, grid: Grid, importance_GC: Tensor | None) -> Tensor:
    squared = grid.weights(grid.codes(w_OGC)).sub_(w_OGC).square_()
    return squared.sum(-1) if importance_GC is None else (squared * importance_GC).sum(-1)


def round_to_nearest(
    weight_OI: Tensor, rule: GridRule, importance_I: Tensor | None = None
) -> QuantizedWeight:
    """Every weight at the nearest code of its group's grid."""
    scheme = rule.scheme
    if scheme.number == "float8":
        return _round_to_float8(weight_OI, rule)
    G = scheme.groups(weight_OI.shape[1])
    w_OGC = weight_OI.float().unflatten(1, (G, -1))
    importance_GC = None if importance_I is None else importance_I.view(G, -1)
    grid = find_grid(w_OGC, rule, importance_GC)
    return make_weight(scheme, grid.codes(w_OGC).flatten(1), grid.scale_OG, grid.zero_OG)


def _round_to_float8(weight_OI: Tensor, rule: GridRule) -> QuantizedWeight:
    """float8 e4m3 with a scale for each group; its own exponent takes the place of a search."""
    G = rule.scheme.groups(weight_OI.shape[1])
    w_OGC = weight_OI.float().unflatten(1, (G, -1))
    scale_OG = stored(w_OGC.abs().amax(-1) / _FLOAT8_MAX, rule.dtype)
    codes = (w_OGC / scale_OG[..., None]).clamp(-_FLOAT8_MAX, _FLOAT8_MAX).to(FLOAT8)
    return QuantizedWeight(rule.scheme, codes.flatten(1), scale_OG, None)


def make_weight(
    scheme: Scheme,
    codes_OI: Tensor,
    scale_OG: Tensor,
    zero_OG: Tensor,
    group_I: Tensor | None = None,
) -> QuantizedWeight:
    """Codes and zeros that are fp32 numbers, as `QuantizedWeight` keeps them."""
    codes, zero = codes_OI.to(torch.uint8).contiguous(), zero_OG.to(torch.uint8)
    return QuantizedWeight(scheme, codes, scale_OG.contiguous(), zero.contiguous(), group_I)

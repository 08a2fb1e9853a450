"""AWQ (Lin et al. 2023, arXiv:2306.00978): give the columns with large inputs a finer grid by scaling them.

The inputs of a site are divided by s = (mean |x|)^a and its columns multiplied by it, where `folds` knows
what can take the division over; a is searched for the least error of the outputs. Then round to nearest.
Shapes: I inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mengya.quantization.grid import GridRule, round_to_nearest
from mengya.quantization.methods.method import Method, Solution
from mengya.quantization.statistics import InputStatistics

_STEPS = 20  # exponents that are tried, from 0: no scaling
_LEAST = 1e-4


@dataclass(frozen=True)
class Awq(Method):
    calibrated: ClassVar[bool] = True
    sequential: ClassVar[bool] = False
    folds: ClassVar[bool] = True

    def solve(
        self, weight_OI: Tensor, rule: GridRule, statistics: InputStatistics | None
    ) -> Solution:
        assert statistics is not None
        importance_I = statistics.importance_I if statistics.tokens else None
        return Solution(round_to_nearest(weight_OI, rule, importance_I))


def search_scales(
    weights: list[Tensor], statistics: list[InputStatistics], rule: GridRule
) -> Tensor:
    """s_I, by which the columns of all `weights` ([O, I], each with inputs of its own) are multiplied."""
    tokens = sum(each.tokens for each in statistics)
    magnitude_I = torch.stack([each.magnitude_I for each in statistics]).sum(0) / max(1, tokens)
    best_I = torch.ones_like(magnitude_I)
    if not tokens or not magnitude_I.isfinite().all():
        return best_I
    least = _error(weights, statistics, rule, best_I)
    for step in range(1, _STEPS):
        s_I = magnitude_I.clamp(min=_LEAST) ** (step / _STEPS)
        s_I = s_I / (s_I.max() * s_I.min()).sqrt()
        error = _error(weights, statistics, rule, s_I)
        if error < least:
            least, best_I = error, s_I
    return best_I


def _error(
    weights: list[Tensor], statistics: list[InputStatistics], rule: GridRule, s_I: Tensor
) -> float:
    """Square of what rounding the scaled weights changes in the outputs."""
    plain = GridRule(rule.scheme, "minmax", rule.dtype)
    error = 0.0
    for weight_OI, each in zip(weights, statistics, strict=True):
        rounded_OI = round_to_nearest(weight_OI * s_I, plain).dequantize() / s_I
        error += each.row_squares(rounded_OI - weight_OI).sum().item()
    return error

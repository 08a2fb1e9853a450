"""Round to nearest: the baseline that everything else must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mengya.quantization.grid import GridRule, round_to_nearest
from mengya.quantization.methods.method import Method, Solution
from mengya.quantization.statistics import InputStatistics


@dataclass(frozen=True)
class Rtn(Method):
    """Every weight at its nearest code; with calibration the search of scales knows which columns matter."""

    calibrated: ClassVar[bool] = False
    sequential: ClassVar[bool] = False
    folds: ClassVar[bool] = False

    def solve(
        self, weight_OI: Tensor, rule: GridRule, statistics: InputStatistics | None
    ) -> Solution:
        importance_I = None if statistics is None else statistics.importance_I
        return Solution(round_to_nearest(weight_OI, rule, importance_I))

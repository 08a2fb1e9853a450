"""LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339): int8 rows, and activations in int8 but for outliers.

What makes it more than rounding happens when the model runs (`Scheme.activations` is `int8_outliers`): inputs
above 6 in magnitude are multiplied as they are. Here a row is divided by its largest magnitude, as
bitsandbytes does, so that its files and ours hold the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mengya.quantization.grid import GridRule, make_weight, stored
from mengya.quantization.methods.method import Method, Solution
from mengya.quantization.statistics import InputStatistics


@dataclass(frozen=True)
class LlmInt8(Method):
    calibrated: ClassVar[bool] = False
    sequential: ClassVar[bool] = False
    folds: ClassVar[bool] = False

    def solve(
        self, weight_OI: Tensor, rule: GridRule, statistics: InputStatistics | None
    ) -> Solution:
        scale_O1 = stored(weight_OI.abs().amax(1, keepdim=True) / 127, torch.float32)
        codes_OI = (weight_OI / scale_O1).round_().clamp_(-127, 127).add_(128)
        zero_O1 = torch.full_like(scale_O1, 128)
        return Solution(make_weight(rule.scheme, codes_OI, scale_O1, zero_O1))

"""What every method of quantization is: a way to choose the codes of matrices that share their inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from mengya.kernels.quantized.weight import QuantizedWeight
from mengya.quantization.grid import GridRule
from mengya.quantization.statistics import InputStatistics


@dataclass(frozen=True)
class Solution:
    """Codes, and what was unusual about finding them.

    Attributes:
        damping: of the Hessian that was factored, as a share of its mean diagonal; None: no Hessian.
        dead_columns: inputs that were zero in all of the calibration.
        note: why another method was used; empty when it was not.
    """

    weight: QuantizedWeight
    damping: float | None = None
    dead_columns: int = 0
    note: str = ""


class Method(Protocol):
    """
    Attributes:
        calibrated: whether it needs inputs.
        sequential: whether the groups of a layer are solved in order, each with the inputs that it gets
            from those before it as they are rounded; else from one pass for all of them.
        folds: whether inputs are scaled, and what made them scaled back, before anything is rounded.
    """

    calibrated: ClassVar[bool]
    sequential: ClassVar[bool]
    folds: ClassVar[bool]

    @property
    def corrects(self) -> bool:
        """Whether it wants to know how far its inputs are from those in the full model."""
        return False

    def solve(
        self, weight_OI: Tensor, rule: GridRule, statistics: InputStatistics | None
    ) -> Solution:
        """Round matrices that multiply the same inputs, their rows one below the other.

        Args:
            weight_OI: fp32.
            statistics: None without calibration.
        """
        ...

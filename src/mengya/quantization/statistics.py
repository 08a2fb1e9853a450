"""What is known of the inputs of a matrix: second moments, mean magnitudes, distance to the full model's.

Takes rows of inputs, gives sums; knows no layer. Shapes: T tokens, I inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 512  # columns of a product; what lies left of the diagonal block is not computed


class InputStatistics:
    """Sums over the tokens that a matrix multiplied.

    Attributes:
        magnitude_I: fp32, sum of |x|.
        tokens: how many.
        drift_II: fp32, sum of (x_full - x) xᵀ with x_full the same token's input in the full model; None
            where that is not known.
    """

    def __init__(self, inputs: int, device: torch.device | str = "cpu") -> None:
        self._sum_II = torch.zeros(inputs, inputs, device=device)
        self._is_complete = True
        self.magnitude_I = torch.zeros(inputs, device=device)
        self.tokens = 0
        self.drift_II: Tensor | None = None

    def add(self, x_TI: Tensor, full_TI: Tensor | None = None) -> None:
        """Count more tokens; `full_TI`: their inputs in the full model."""
        x_TI = x_TI.float()
        if full_TI is not None:
            if self.drift_II is None:
                self.drift_II = torch.zeros_like(self._sum_II)
            self.drift_II.addmm_((full_TI.float() - x_TI).T, x_TI)
        for first in range(0, x_TI.shape[1], _BLOCK):
            rows = slice(first, first + _BLOCK)
            self._sum_II[rows, first:].addmm_(x_TI[:, rows].T, x_TI[:, first:])
        self._is_complete = False
        self.magnitude_I += x_TI.abs().sum(0)
        self.tokens += len(x_TI)

    @property
    def hessian_II(self) -> Tensor:
        """fp32, sum of x xᵀ; a solver wants it up to a factor only."""
        if not self._is_complete:
            upper_II = self._sum_II.triu()
            self._sum_II = upper_II + upper_II.triu(1).T
            self._is_complete = True
        return self._sum_II

    @property
    def importance_I(self) -> Tensor:
        """Sum of the squares of each input."""
        return self._sum_II.diagonal()

    def is_finite(self) -> bool:
        known = self.hessian_II.isfinite().all()
        return bool(known if self.drift_II is None else known & self.drift_II.isfinite().all())

    def scaled(self, factor_I: Tensor) -> InputStatistics:
        """Of the inputs times `factor_I`."""
        changed = InputStatistics(0, factor_I.device)
        changed._sum_II = self.hessian_II * factor_I * factor_I[:, None]
        changed.magnitude_I = self.magnitude_I * factor_I
        changed.tokens = self.tokens
        return changed

    def row_squares(self, weight_OI: Tensor) -> Tensor:
        """Sum over all tokens of the squares of each output, [O]."""
        return ((weight_OI @ self.hessian_II) * weight_OI).sum(1).clamp_(min=0)

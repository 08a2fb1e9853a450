"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): round a column, move its error to the columns after it.

With H = sum of x xᵀ over the inputs and U the upper Cholesky factor of H^-1, column i is rounded and
every later column j takes w_j -= (w_i - rounded_i) U_ij / U_ii, which keeps |x (W - W')ᵀ| least. Columns
are done in blocks: inside of one at once, all that come after it in one product.

What is rounded is W + a W D H^-1, with D = sum of (x_full - x) xᵀ and x_full the inputs in the full model
(QEP, Arai and Ichikawa 2025, arXiv:2504.09629). With a = 1 it is the matrix of which x comes closest to
x_full Wᵀ: it makes up for the errors before it; less than 1 fits the calibration less closely.

Shapes: O outputs (of all matrices that share the inputs), I inputs, G groups, C columns of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mengya.errors import UserError
from mengya.kernels.quantized.weight import QuantizedWeight
from mengya.quantization.grid import Grid, GridRule, find_grid, make_weight, round_to_nearest
from mengya.quantization.methods.method import Solution
from mengya.quantization.statistics import InputStatistics

ActivationOrder = Literal["static", "group"]
_DAMPINGS = 8  # tries, each with ten times the one before


@dataclass(frozen=True)
class Gptq:
    """
    Attributes:
        damping: share of the mean diagonal that is added to the diagonal of H.
        activation_order: columns with the largest inputs first. `static`: groups and scales as without it,
            so that a reader notices nothing; `group`: groups of neighbours in this order, which a reader
            finds by `group_I`; None: from left to right.
        block: columns that are solved before the rest of the matrix is touched.
        propagation: a, the share of the errors before a matrix that it makes up for.
    """

    damping: float = 0.01
    activation_order: ActivationOrder | None = "static"
    block: int = 128
    propagation: float = 0.5
    calibrated: ClassVar[bool] = True
    sequential: ClassVar[bool] = True
    folds: ClassVar[bool] = False

    @property
    def corrects(self) -> bool:
        return self.propagation > 0

    def solve(
        self, weight_OI: Tensor, rule: GridRule, statistics: InputStatistics | None
    ) -> Solution:
        """
        Raises:
            UserError: H has numbers that are not finite, or cannot be made positive definite.
        """
        assert statistics is not None
        I = weight_OI.shape[1]
        if statistics.tokens < I:
            # H has no rank then: the error would be moved where these few tokens do not see it.
            note = f"rtn: {statistics.tokens} tokens for {I} inputs"
            importance_I = statistics.importance_I if statistics.tokens else None
            return Solution(round_to_nearest(weight_OI, rule, importance_I), note=note)
        if not statistics.is_finite():
            raise UserError("its inputs in the calibration are not finite (NaN or infinity)")
        hessian_II = statistics.hessian_II
        dead_I = hessian_II.diagonal() == 0
        order_I = self._order(hessian_II)
        factor_II, damping = _inverse_factor(hessian_II, order_I, self.damping)
        if statistics.drift_II is not None:
            change_OI = _correction(weight_OI, statistics.drift_II, factor_II, order_I)
            weight_OI = weight_OI + self.propagation * change_OI
        weight = self._solve(weight_OI, rule, factor_II, order_I)
        return Solution(weight, damping, int(dead_I.sum()))

    def _order(self, hessian_II: Tensor) -> Tensor:
        """The columns in the order in which they are solved."""
        if self.activation_order is None:
            return torch.arange(len(hessian_II), device=hessian_II.device)
        return hessian_II.diagonal().argsort(descending=True, stable=True)

    def _solve(
        self, weight_OI: Tensor, rule: GridRule, U_II: Tensor, order_I: Tensor
    ) -> QuantizedWeight:
        scheme, (O, I) = rule.scheme, weight_OI.shape
        G = scheme.groups(I)
        C = I // G
        by_order = self.activation_order == "group" and G > 1
        columns_I = torch.arange(I, device=weight_OI.device)
        group_I = (
            columns_I if by_order else order_I
        ) // C  # of each column, in the order of solving
        groups = group_I.tolist()
        back_I = order_I.argsort()
        importance_I = (
            U_II.diagonal() ** -2
        )  # of a column's squared error, once those after it make up for it
        if ready := G == 1 or self.activation_order == "static":
            grid = find_grid(weight_OI.unflatten(1, (G, C)), rule, importance_I[back_I].view(G, C))
        else:
            grid = Grid(weight_OI.new_empty(O, G), weight_OI.new_empty(O, G), 2**scheme.bits - 1)
        w_IO = weight_OI.T[order_I]  # a copy, in which a column of the matrix lies in a row
        codes_IO = torch.empty_like(w_IO)
        for first in range(0, I, self.block):
            last = min(first + self.block, I)
            errors_BO = torch.empty_like(w_IO[first:last])
            for i in range(first, last):
                if not ready and i % C == 0:
                    _set_group(grid, groups[i], w_IO[i : i + C].T, rule, importance_I[i : i + C])
                scale_O, zero_O = grid.scale_OG[:, groups[i]], grid.zero_OG[:, groups[i]]
                codes_O = torch.addcdiv(zero_O, w_IO[i], scale_O).round_().clamp_(0, grid.top)
                codes_IO[i] = codes_O
                error_O = (w_IO[i] - scale_O * (codes_O - zero_O)) / U_II[i, i]
                w_IO[i + 1 : last].addr_(U_II[i, i + 1 : last], error_O, alpha=-1)
                errors_BO[i - first] = error_O
            w_IO[last:].addmm_(U_II[first:last, last:].T, errors_BO, alpha=-1)
        kept = group_I[back_I].to(torch.int32) if by_order else None
        return make_weight(scheme, codes_IO[back_I].T, grid.scale_OG, grid.zero_OG, kept)


def _set_group(grid: Grid, group: int, w_OC: Tensor, rule: GridRule, importance_C: Tensor) -> None:
    """Scales of a group that is about to be solved, from its columns as they are by then."""
    found = find_grid(w_OC[:, None], rule, importance_C[None])
    grid.scale_OG[:, group] = found.scale_OG[:, 0]
    grid.zero_OG[:, group] = found.zero_OG[:, 0]


def _correction(weight_OI: Tensor, drift_II: Tensor, U_II: Tensor, order_I: Tensor) -> Tensor:
    """W D H^-1, where Uᵀ U = H^-1 has its columns in `order_I`."""
    ordered_OI = (weight_OI @ drift_II)[:, order_I] @ U_II.T @ U_II
    return ordered_OI[:, order_I.argsort()]


def _inverse_factor(hessian_II: Tensor, order_I: Tensor, damping: float) -> tuple[Tensor, float]:
    """(U, damping used): U upper triangular with Uᵀ U = H^-1, columns in `order_I`; H is damped.

    Raises:
        UserError: not positive definite with any damping.
    """
    hessian_II = hessian_II[order_I][:, order_I]
    diagonal_I = hessian_II.diagonal()
    mean = diagonal_I.mean()
    dead_I = (diagonal_I == 0).to(
        mean.dtype
    ) * mean  # a column that no input reaches is rounded alone
    for _ in range(_DAMPINGS):
        damped_II = hessian_II + torch.diag(dead_I + damping * mean)
        lower_II, failed = torch.linalg.cholesky_ex(damped_II)
        if not failed:
            upper_II, failed = torch.linalg.cholesky_ex(
                torch.cholesky_inverse(lower_II), upper=True
            )
            if not failed and bool(upper_II.isfinite().all()):
                return upper_II, damping
        damping = 10 * damping if damping else 1e-4
    raise UserError(f"its Hessian is not positive definite, not even with damping={damping / 10:g}")

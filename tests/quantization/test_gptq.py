"""GPTQ against a textbook loop, and what it does with Hessians that are not as in the book."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mengya.errors import UserError
from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from mengya.quantization.grid import GridRule, round_to_nearest
from mengya.quantization.methods.gptq import ActivationOrder, Gptq
from mengya.quantization.statistics import InputStatistics

I, O = 96, 40


def inputs(seed: int = 0, tokens: int = 600) -> InputStatistics:
    """Of inputs that depend on one another and differ in size."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(I, I, generator=generator) / I**0.5 + torch.eye(I)
    x = torch.randn(tokens, I, generator=generator) @ mix * torch.rand(I, generator=generator)
    statistics = InputStatistics(I)
    statistics.add(x)
    return statistics


def matrix(seed: int = 1) -> Tensor:
    return torch.randn(O, I, generator=torch.Generator().manual_seed(seed))


def output_error(weight: QuantizedWeight, full: Tensor, statistics: InputStatistics) -> float:
    return statistics.row_squares(weight.dequantize() - full).sum().item()


def textbook(
    weight: Tensor, hessian: Tensor, bits: int, group: int, damping: float, order: list[int]
) -> Tensor:
    """Optimal brain quantization column by column (arXiv:2210.17323, eq. 2 and 3), in fp64.

    Without blocks or a Cholesky factor: after each column the inverse of what is left is made again. Scales:
    min-max of the full matrix, symmetric."""
    w = weight.double().clone()
    damped = hessian.double() + damping * hessian.double().diagonal().mean() * torch.eye(
        len(hessian)
    )
    scale = weight.unflatten(1, (-1, group)).abs().amax(-1).double() * 2 / (2**bits - 1)
    half = 2 ** (bits - 1)
    left = list(order)
    while left:
        column = left[0]
        inverse = torch.linalg.inv(damped[left][:, left])
        s = scale[:, column // group]
        rounded = (w[:, column] / s).round().clamp(-half, half - 1) * s
        error = (w[:, column] - rounded) / inverse[0, 0]
        w[:, left] -= error[:, None] * inverse[0]
        w[:, column] = rounded
        left.pop(0)
    return w


@pytest.mark.parametrize(("order", "group"), [(None, I), ("static", I), ("static", 32)])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_blocks_give_what_the_textbook_gives(
    bits: int, order: ActivationOrder | None, group: int
) -> None:
    statistics, full = inputs(), matrix()
    columns = statistics.importance_I.argsort(descending=True, stable=True).tolist()
    columns = list(range(I)) if order is None else columns
    expected = textbook(full, statistics.hessian_II, bits, group, 0.01, columns)
    rule = GridRule(Scheme(bits, group), "minmax")
    solution = Gptq(0.01, order, block=20).solve(full, rule, statistics)
    found = solution.weight.dequantize(torch.float64)
    # In fp32 a number may fall to the other side of a tie, and the rest of its row after it.
    same_rows = ((found - expected).abs() < 1e-4).all(1).sum().item()
    assert same_rows >= O - 3
    assert solution.damping == 0.01


@pytest.mark.parametrize("order", [None, "static", "group"])
def test_blocked_equals_unblocked(order: ActivationOrder | None) -> None:
    statistics, full = inputs(), matrix()
    rule = GridRule(Scheme(3, 32), "mse")
    blocked = Gptq(activation_order=order, block=32).solve(full, rule, statistics).weight
    single = Gptq(activation_order=order, block=I).solve(full, rule, statistics).weight
    same = (blocked.codes_OI == single.codes_OI).double().mean().item()
    assert same > 0.99
    assert (blocked.group_I is not None) == (order == "group")


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [32, None])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_beats_rounding(bits: int, group_size: int | None, symmetric: bool) -> None:
    statistics, full = inputs(), matrix()
    scheme = Scheme(bits, group_size, symmetric)
    rounded = output_error(round_to_nearest(full, GridRule(scheme)), full, statistics)
    for order in (None, "static", "group"):
        solved = Gptq(activation_order=order).solve(full, GridRule(scheme), statistics).weight
        assert output_error(solved, full, statistics) < rounded
        assert int(solved.codes_OI.max()) < 2**bits
        assert solved.scheme == scheme


def test_dead_columns_are_rounded_and_counted() -> None:
    statistics, full = inputs(), matrix()
    dead = torch.ones(I)
    dead[[3, 50]] = 0
    rule = GridRule(Scheme(4, 32), "minmax")
    solution = Gptq().solve(full, rule, statistics.scaled(dead))
    assert solution.dead_columns == 2
    nearest = round_to_nearest(full, rule)
    columns = [3, 50]
    assert torch.equal(solution.weight.codes_OI[:, columns], nearest.codes_OI[:, columns])


def test_a_hessian_that_is_not_positive_definite_is_damped_more() -> None:
    statistics = inputs()
    hessian = statistics.hessian_II
    hessian -= 0.2 * hessian.diagonal().mean() * torch.eye(I)
    assert torch.linalg.eigvalsh(statistics.hessian_II).min() < 0
    solution = Gptq(damping=0.01).solve(matrix(), GridRule(Scheme(4, 32)), statistics)
    assert solution.damping == pytest.approx(1.0)
    assert solution.weight.dequantize().isfinite().all()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_hessian_that_is_not_finite_is_refused(number: float) -> None:
    statistics = inputs()
    statistics.hessian_II[2, 3] = number
    with pytest.raises(UserError, match="not finite"):
        Gptq().solve(matrix(), GridRule(Scheme(4, 32)), statistics)


def test_too_few_tokens_fall_back_to_rounding() -> None:
    few = inputs(tokens=I - 1)
    solution = Gptq().solve(matrix(), GridRule(Scheme(4, 32)), few)
    assert solution.note == f"rtn: {I - 1} tokens for {I} inputs"
    nothing = Gptq().solve(matrix(), GridRule(Scheme(4, 32)), InputStatistics(I))
    assert torch.equal(
        nothing.weight.codes_OI, round_to_nearest(matrix(), GridRule(Scheme(4, 32))).codes_OI
    )


def test_a_matrix_of_zeros_stays_zero() -> None:
    solution = Gptq().solve(torch.zeros(O, I), GridRule(Scheme(4, 32)), inputs())
    assert not solution.weight.dequantize().any()


@pytest.mark.parametrize("order", [None, "static", "group"])
def test_makes_up_for_what_changed_its_inputs(order: ActivationOrder | None) -> None:
    """With 8 bits what is left of the outputs' difference is that of least squares (arXiv:2504.09629)."""
    generator = torch.Generator().manual_seed(2)
    x_full = torch.randn(600, I, generator=generator) * torch.rand(I, generator=generator)
    x = x_full + 0.3 * x_full.roll(1, 1) + 0.1 * torch.randn(600, I, generator=generator)
    statistics, full = InputStatistics(I), matrix()
    statistics.add(x, x_full)
    best = torch.linalg.lstsq(x, x_full @ full.T).solution

    def left(propagation: float) -> float:
        method = Gptq(1e-4, order, propagation=propagation)
        weight = method.solve(full, GridRule(Scheme(8, 32)), statistics).weight.dequantize()
        return (x @ weight.T - x_full @ full.T).square().sum().item()

    least = (x @ best - x_full @ full.T).square().sum().item()
    assert left(1.0) < 1.02 * least
    assert left(1.0) < left(0.5) < left(0.0)

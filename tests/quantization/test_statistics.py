"""Sums over inputs, whatever the batches that they come in."""

from __future__ import annotations

import torch

from mengya.quantization.statistics import InputStatistics


def test_sums_over_batches_and_blocks_of_columns() -> None:
    x = torch.randn(300, 700, generator=torch.Generator().manual_seed(0))  # two blocks of columns
    statistics = InputStatistics(700)
    statistics.add(x[:100])
    assert torch.equal(statistics.hessian_II, statistics.hessian_II.T)
    statistics.add(x[100:])
    torch.testing.assert_close(statistics.hessian_II, x.T @ x, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(statistics.importance_I, x.square().sum(0))
    torch.testing.assert_close(statistics.magnitude_I, x.abs().sum(0))
    assert statistics.tokens == 300
    factor = torch.rand(700)
    torch.testing.assert_close(
        statistics.scaled(factor).hessian_II, (x * factor).T @ (x * factor), rtol=1e-4, atol=1e-3
    )
    weight = torch.randn(5, 700)
    expected = (x @ weight.T).square().sum(0)
    torch.testing.assert_close(statistics.row_squares(weight), expected, rtol=1e-3, atol=1e-2)


def test_drift_is_the_product_with_what_the_full_model_had() -> None:
    x, full = torch.randn(2, 300, 40, generator=torch.Generator().manual_seed(0))
    statistics = InputStatistics(40)
    assert statistics.drift_II is None
    statistics.add(x[:100], full[:100])
    statistics.add(x[100:], full[100:])
    assert statistics.drift_II is not None
    torch.testing.assert_close(statistics.drift_II, (full - x).T @ x, rtol=1e-4, atol=1e-3)
    assert statistics.is_finite()
    statistics.drift_II[0, 1] = float("nan")
    assert not statistics.is_finite()

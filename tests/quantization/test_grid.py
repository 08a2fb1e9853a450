"""Scales: what a search gains over the full range, and numbers at the edge."""

from __future__ import annotations

import pytest
import torch

from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from mengya.quantization.grid import GridRule, round_to_nearest


def error(weight: QuantizedWeight, full: torch.Tensor) -> float:
    return (weight.dequantize() - full).square().sum().item()


def matrix() -> torch.Tensor:
    return torch.randn(16, 128, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_search_loses_less_than_the_full_range(bits: int, symmetric: bool) -> None:
    full, scheme = matrix(), Scheme(bits, 64, symmetric)
    searched = round_to_nearest(full, GridRule(scheme, "mse"))
    plain = round_to_nearest(full, GridRule(scheme, "minmax"))
    assert error(searched, full) < 0.95 * error(plain, full)
    assert int(searched.codes_OI.max()) < 2**bits


def test_the_longer_side_of_symmetric_codes_is_where_the_weights_are() -> None:
    """0 to 8 on a grid of -8 to 7: with a scale below 0 nothing is lost."""
    full = torch.arange(64).remainder(9).float()[None] / 8
    weight = round_to_nearest(full, GridRule(Scheme(4, 64), "mse"))
    assert weight.scale_OG.item() < 0
    torch.testing.assert_close(weight.dequantize(), full)


def test_importance_decides_between_columns() -> None:
    full = matrix()
    importance = torch.ones(128)
    importance[:32] = 100
    scheme = Scheme(2, 64)
    weighted = round_to_nearest(full, GridRule(scheme, "mse"), importance).dequantize()
    even = round_to_nearest(full, GridRule(scheme, "mse")).dequantize()
    errors = [((each - full)[:, :32] ** 2).sum() for each in (weighted, even)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scales_are_those_that_a_file_holds(dtype: torch.dtype) -> None:
    for scheme in (Scheme(4, 64), Scheme(3, None, False), Scheme(8, None, number="float8")):
        scale = round_to_nearest(matrix(), GridRule(scheme, "mse", dtype)).scale_OG
        assert torch.equal(scale, scale.to(dtype).float())


def test_zeros_and_tiny_numbers() -> None:
    full = torch.zeros(2, 64)
    full[1] = 1e-30  # below what fp16 scales hold
    for symmetric in (True, False):
        for rule in ("mse", "minmax"):
            scheme = Scheme(4, 64, symmetric)
            weight = round_to_nearest(full, GridRule(scheme, rule, torch.float16))
            assert not weight.dequantize().any()

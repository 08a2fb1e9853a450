"""A quantized matrix gives back scale * (code - zero), whatever the order of its columns."""

from __future__ import annotations

import torch

from mengya.kernels.quantized.weight import QuantizedWeight, Scheme


def _weight(group_I: torch.Tensor | None = None) -> QuantizedWeight:
    codes = torch.tensor([[0, 15, 8, 7], [1, 2, 3, 4]], dtype=torch.uint8)
    scale = torch.tensor([[0.5, 2.0], [1.0, 0.25]])
    zero = torch.tensor([[8, 7], [0, 4]], dtype=torch.uint8)
    return QuantizedWeight(Scheme(4, 2, symmetric=False), codes, scale, zero, group_I)


def test_neighbours_share_a_scale() -> None:
    expected = torch.tensor([[-4.0, 3.5, 2.0, 0.0], [1.0, 2.0, -0.25, 0.0]])
    torch.testing.assert_close(_weight().dequantize(), expected, rtol=0, atol=0)


def test_columns_of_a_group_need_not_be_neighbours() -> None:
    groups = torch.tensor([1, 0, 1, 0], dtype=torch.int32)
    expected = torch.tensor([[-14.0, 3.5, 2.0, -0.5], [-0.75, 2.0, -0.25, 4.0]])
    torch.testing.assert_close(_weight(groups).dequantize(), expected, rtol=0, atol=0)

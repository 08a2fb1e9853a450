"""Bits go where the error is."""

from __future__ import annotations

import pytest

from mengya.quantization.observe import Observed, choose_widths, mean_width

GROUPS = {
    "a": Observed(0.4, 100, "a"), "b": Observed(0.1, 100, "b"), "c": Observed(0.3, 200, "c"),
    "d": Observed(0.01, 600, "d"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("mean_bits", "expected"),
    [
        (3.05, {"a": 3, "b": 3, "c": 3, "d": 3}),
        (3.1, {"a": 4, "b": 3, "c": 3, "d": 3}),
        (3.35, {"a": 4, "b": 3, "c": 4, "d": 3}),
        (3.4, {"a": 4, "b": 4, "c": 4, "d": 3}),
        (8, {"a": 8, "b": 8, "c": 8, "d": 8}),
    ],
)
def test_the_worst_get_more_within_the_mean(mean_bits: float, expected: dict[str, int]) -> None:
    widths = choose_widths(GROUPS, 3, mean_bits)
    assert widths == expected
    assert mean_width(widths, GROUPS) <= mean_bits


def test_the_next_larger_width_of_4_is_8() -> None:
    assert choose_widths(GROUPS, 4, 4.4) == {"a": 8, "b": 4, "c": 4, "d": 4}


def test_a_unit_has_one_width_or_none_of_it_fits() -> None:
    groups = {
        "a": Observed(0.4, 100, "experts"), "b": Observed(0.01, 300, "experts"), "c": Observed(0.3, 100, "c"),
    }  # fmt: skip
    assert choose_widths(groups, 3, 3.3) == {"a": 3, "b": 3, "c": 4}
    assert choose_widths(groups, 3, 3.8) == {"a": 4, "b": 4, "c": 3}

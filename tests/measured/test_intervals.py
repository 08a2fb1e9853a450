"""Intervals of shares where a bootstrap says nothing."""

from __future__ import annotations

from mengya.measured.intervals import bootstrap_mean, bootstrap_share, wilson


def test_all_right_and_all_wrong_are_no_certainty() -> None:
    assert bootstrap_share([1.0] * 5) == wilson(5, 5) and bootstrap_share([0.0] * 5) == wilson(0, 5)
    assert bootstrap_mean([1.0] * 5) == (1.0, 1.0)


def test_other_shares_are_bootstrapped() -> None:
    values = [1.0, 0.5, 0.0, 1.0, 0.5, 1.0]
    assert bootstrap_share(values, 3) == bootstrap_mean(values, 3)
    assert bootstrap_share([0.5, 0.5]) == (0.5, 0.5)

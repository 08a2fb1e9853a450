"""Intervals and tests for means over items: Wilson's of a share, percentile bootstrap, two models paired.

Takes one number an item; gives 95 % intervals and p values, equal for equal seeds. Source of the bootstrap:
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 15.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
_CHUNK = 1 << 22  # indices drawn at a time
_Z = 1.959964  # standard deviations on either side that hold 95 % of a normal distribution


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval (Wilson 1927) of successes / trials, at 95 %.

    Unlike the normal approximation it stays inside [0, 1] and is right for few trials.
    """
    if trials == 0:
        return 0.0, 1.0
    share, z = successes / trials, _Z
    spread = z / trials * math.sqrt(share * (1 - share) * trials + z * z / 4)
    centre = share + z * z / (2 * trials)
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `values`.

    Raises:
        ValueError: no value.
    """
    low, high = np.quantile(_resampled_means(np.asarray(values, np.float64), seed), [0.025, 0.975])
    return float(low), float(high)


def bootstrap_share(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """As `bootstrap_mean`, of values from 0 to 1; where all are 0, or all are 1, Wilson's interval.

    A bootstrap of equal values has no width, and few right answers are no certainty.

    Raises:
        ValueError: no value.
    """
    if set(values) in ({0.0}, {1.0}):
        return wilson(round(sum(values)), len(values))
    return bootstrap_mean(values, seed)


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of sum(numerators) / sum(denominators), items drawn in pairs.

    For means over documents of different length, such as bits per character.

    Raises:
        ValueError: no item, or different numbers of items.
    """
    if len(numerators) != len(denominators):
        raise ValueError(f"{len(numerators)} numerators against {len(denominators)} denominators")
    drawn = _resampled_means(np.asarray(numerators, np.float64), seed) / _resampled_means(
        np.asarray(denominators, np.float64), seed
    )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedDifference:
    """mean of second - first over the same items, its interval, and the two-sided p of no difference."""

    mean: float
    interval: tuple[float, float]
    p: float
    items: int


def paired_difference(
    first: Sequence[float], second: Sequence[float], seed: int = 0
) -> PairedDifference:
    """Compare two models on the same items; p by flipping the signs of the differences at random.

    Raises:
        ValueError: no item, or different numbers of items.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} items against {len(second)}: not the same items")
    difference = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    low, high = np.quantile(_resampled_means(difference, seed), [0.025, 0.975])
    observed = abs(difference.mean())
    generator = np.random.default_rng(seed)
    as_large = 0
    for rows in _chunks(len(difference)):
        signs = generator.integers(0, 2, (rows, len(difference)), dtype=np.int8) * 2 - 1
        as_large += int((np.abs(signs @ difference) / len(difference) >= observed - 1e-12).sum())
    p = (as_large + 1) / (RESAMPLES + 1)  # the observed signs are one of the draws
    return PairedDifference(float(difference.mean()), (float(low), float(high)), p, len(difference))


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    if len(values) == 0:
        raise ValueError("no item to take a mean of")
    generator = np.random.default_rng(seed)
    return np.concatenate(
        [
            values[generator.integers(0, len(values), (rows, len(values)))].mean(1)
            for rows in _chunks(len(values))
        ]
    )


def _chunks(items: int) -> list[int]:
    """How many resamples to draw at a time."""
    rows = max(1, _CHUNK // items)
    return [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]

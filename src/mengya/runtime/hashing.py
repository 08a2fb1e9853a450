"""The mixing function behind every random number that must not depend on a library's version."""

from __future__ import annotations

import numpy as np

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd: SplitMix64's increment


def mix64(values: np.ndarray) -> np.ndarray:
    """Scramble uint64 values one to one: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = values.astype(np.uint64)  # a copy, wrapping modulo 2**64
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

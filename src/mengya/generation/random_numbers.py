"""The random numbers of completions: pure functions of a seed and of how many were drawn before.

Takes and gives numpy arrays on the host, one entry a row; knows nothing of logits.
"""

from __future__ import annotations

import os

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def row_seed(seed: int | None) -> int:
    """Of 64 bits; None draws one anew, from the system, so that training's random state is not moved."""
    return int.from_bytes(os.urandom(8), "little") if seed is None else seed % 2**64


def uniforms(seeds_B: np.ndarray, steps_B: np.ndarray) -> np.ndarray:
    """One number in [0, 1) for each row, a pure function of its seed and of how many it drew before.

    So nothing has to be remembered: an interrupted completion goes on with the same numbers. SplitMix64
    (Steele et al. 2014, "Fast splittable pseudorandom number generators"), entered at any step.

    Args:
        seeds_B: uint64.
        steps_B: int, from 0.

    Returns:
        [B] float32 of 24 random bits.
    """
    with np.errstate(over="ignore"):
        streams_B = _mixed(seeds_B.astype(np.uint64) + _GAMMA)
        bits_B = _mixed(streams_B + (steps_B.astype(np.uint64) + np.uint64(1)) * _GAMMA)
    return (bits_B >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def _mixed(x_B: np.ndarray) -> np.ndarray:
    x_B = (x_B ^ (x_B >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x_B = (x_B ^ (x_B >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x_B ^ (x_B >> np.uint64(31))

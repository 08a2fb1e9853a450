"""The random numbers of completions: pure functions of a seed and of how many were drawn before.

Takes and gives numpy arrays on the host, one entry a row; knows nothing of logits.
"""

from __future__ import annotations

import os

import numpy as np

from mengya.runtime.hashing import GOLDEN_GAMMA, mix64


def row_seed(seed: int | None) -> int:
    """A seed of 64 bits; None draws it from the operating system, leaving training's random state alone."""
    return int.from_bytes(os.urandom(8), "little") if seed is None else seed % 2**64


def uniforms(seeds_B: np.ndarray, steps_B: np.ndarray) -> np.ndarray:
    """One number in [0, 1) for each row, a pure function of its seed and of how many it drew before.

    So no state is kept: an interrupted completion resumes with the same numbers. SplitMix64
    (Steele et al. 2014, "Fast splittable pseudorandom number generators"), entered at any step.

    Args:
        seeds_B: uint64.
        steps_B: int, from 0.

    Returns:
        [B] float32 of 24 random bits.
    """
    with np.errstate(over="ignore"):
        streams_B = mix64(seeds_B.astype(np.uint64) + GOLDEN_GAMMA)
        bits_B = mix64(streams_B + (steps_B.astype(np.uint64) + np.uint64(1)) * GOLDEN_GAMMA)
    return (bits_B >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)

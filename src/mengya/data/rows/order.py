"""The order of rows as a pure function of (seed, epoch, index): nothing to save, nothing to restore.

Takes integers, gives permutations. The mixing function is written out, so the order does not depend on the
version of a random number library.
"""

from __future__ import annotations

import numpy as np

from mengya.runtime.hashing import GOLDEN_GAMMA, mix64


def row_permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """A permutation of range(n), int64, that depends on nothing but the three arguments.

    Every index gets a 64-bit key hashed from (seed, epoch, index); sorted by key, then index.
    """
    if n < 0 or epoch < 0:
        raise ValueError(f"epoch {epoch} and n {n} must not be negative")
    start = mix64(np.array([seed % 2**64], np.uint64) + GOLDEN_GAMMA)
    start = mix64(start ^ mix64(np.array([epoch], np.uint64) * GOLDEN_GAMMA + np.uint64(1)))
    keys = mix64(start + np.arange(1, n + 1, dtype=np.uint64) * GOLDEN_GAMMA)
    return np.argsort(keys, kind="stable")

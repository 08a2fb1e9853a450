"""64-bit hashes of all runs of n characters of an array, and of complete lines; membership in a large set.

Equal characters have equal hashes; different ones share a hash about once in 2^64 comparisons.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from mengya.runtime.hashing import GOLDEN_GAMMA, mix64

_BASE = 0xD6E8FEB86659FD93  # odd, so that no power of it vanishes modulo 2^64
_MIN_BITS, _MAX_BITS = 16, 25  # of the table that most hashes are looked up in: 64 kB to 32 MB


def ngram_hashes(codes: np.ndarray, n: int) -> np.ndarray:
    """[K] uint32 -> [K - n + 1] uint64, of the characters from every place on; n - 1 fewer than K.

    Runs of 1, 2, 4, ... characters are joined to longer ones, so a run of n takes about 2 log2(n) passes.
    """
    length = max(0, len(codes) - n + 1)
    run = codes.astype(np.uint64) * GOLDEN_GAMMA  # of `size` characters, from every place on
    size, done, result = 1, 0, None
    while length:
        if n & size:
            part = run[done : done + length]
            result = part if result is None else result * _power(size) + part
            done += size
        if done == n:
            break
        run = run[:-size] * _power(size) + run[size:]
        size *= 2
    return np.zeros(0, np.uint64) if result is None else mix64(result)


def run_hashes(codes: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """uint64 of the runs codes[begin : begin + length]: those of a run alone, all lengths in one call."""
    hashes = lengths.astype(np.uint64)
    for at in range(int(lengths.max(initial=0))):
        inside = np.flatnonzero(at < lengths)
        values = codes[begins[inside] + at].astype(np.uint64) * GOLDEN_GAMMA
        hashes[inside] = hashes[inside] * np.uint64(_BASE) + values
    return mix64(hashes)


class HashSet:
    """Many uint64, asked for in bulk: a table by the first bits answers most with no, a search the rest."""

    def __init__(self, hashes: np.ndarray) -> None:
        self.sorted = np.unique(hashes)

    @cached_property
    def _shift(self) -> np.uint64:
        bits = len(self.sorted).bit_length() + 5  # at most one place in 32 is taken
        return np.uint64(64 - min(_MAX_BITS, max(_MIN_BITS, bits)))

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.zeros(1 << int(np.uint64(64) - self._shift), bool)
        table[self.sorted >> self._shift] = True
        return table

    def __getstate__(self) -> dict[str, np.ndarray]:
        return {"sorted": self.sorted}  # a process that it is sent to makes the table itself

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(places in `hashes` of those that are in the set, their indices in `sorted`)."""
        places = np.flatnonzero(self._table[hashes >> self._shift])
        if not len(places) or not len(self.sorted):
            return places[:0], places[:0]
        wanted = hashes[places]
        at = np.minimum(np.searchsorted(self.sorted, wanted), len(self.sorted) - 1)
        found = self.sorted[at] == wanted
        return places[found], at[found]


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(_BASE, exponent, 1 << 64))

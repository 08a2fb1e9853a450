"""Which earlier texts share a key with a new one, for millions of texts.

An entry of 8 bytes is a key and the number of the text that has it. Entries lie in sorted arrays, each from
texts before those of the next; arrays are merged when the next one is a quarter as large, so there are few.
Memory: 8 bytes for every key of a text, and the same again while the largest arrays are merged.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SHARED = 32  # of the texts with one key, only the first so many are entered: bounds the work on templates
_MERGED = 4
_LOW, _NUMBER = np.uint64(32), np.uint64(0xFFFFFFFF)


class Candidates(NamedTuple):
    """Pairs of texts that share a key, each once, int64 [M, 2], sorted.

    Attributes:
        earlier: (row of the call, number of an earlier text).
        within: (row of the call, earlier row of it).
    """

    earlier: np.ndarray
    within: np.ndarray


class KeyIndex:
    """Texts are numbered from 0 as they are added."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def candidates(self, keys: np.ndarray) -> Candidates:
        """Pairs of texts with uint32 `keys` [N, B], which are not added, and of them and earlier ones."""
        entries = _entries(keys, 0)
        wanted, rows = entries >> _LOW, (entries & _NUMBER).astype(np.int64)
        found = [np.zeros((0, 2), np.int64)]
        for run in self._runs:
            first, counts = _ranges(run, wanted)
            places = np.repeat(first, counts) + _counted(counts)
            numbers = (run[places] & _NUMBER).astype(np.int64)
            found.append(np.stack([np.repeat(rows, counts), numbers], axis=1))
        return Candidates(_unique(np.concatenate(found)), _within(wanted, rows))

    def add(self, keys: np.ndarray) -> None:
        """Enter texts with uint32 `keys` [N, B] under the next numbers."""
        entries = _entries(keys, self._count)
        self._count += len(keys)
        wanted = entries >> _LOW
        before = _ranks(wanted)
        for run in self._runs:
            before += _ranges(run, wanted)[1]
        self._runs.append(entries[before < SHARED])
        while len(self._runs) > 1 and len(self._runs[-2]) < _MERGED * len(self._runs[-1]):
            last = self._runs.pop()
            merged = np.concatenate([self._runs.pop(), last])
            del last
            merged.sort(kind="stable")
            self._runs.append(merged)


def _entries(keys: np.ndarray, first: int) -> np.ndarray:
    """Sorted uint64, (key, number of the text) of every key, the texts numbered from `first`."""
    numbers = np.arange(first, first + len(keys), dtype=np.uint64)
    entries = (keys.astype(np.uint64) << _LOW | numbers[:, None]).ravel()
    entries.sort()
    return entries


def _ranges(run: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first place, number of entries) of every wanted key, which are sorted, in a sorted array."""
    first = np.searchsorted(run, wanted << _LOW)
    counts = np.zeros(len(wanted), np.int64)
    inside = np.flatnonzero(first < len(run))
    hits = inside[run[first[inside]] >> _LOW == wanted[inside]]
    last = wanted[hits] << _LOW | _NUMBER
    counts[hits] = np.searchsorted(run, last, side="right") - first[hits]
    return first, counts


def _ranks(wanted: np.ndarray) -> np.ndarray:
    """How many equal values stand before each of sorted ones."""
    starts = np.flatnonzero(np.diff(wanted, prepend=wanted[:1] + np.uint64(1)))
    counts = np.diff(starts, append=len(wanted))
    return _counted(counts)


def _within(wanted: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(row, earlier row with the same key) of sorted keys; of each key only the first rows count."""
    ranks = _ranks(wanted)
    counts = np.minimum(ranks, SHARED)
    first = np.arange(len(wanted)) - ranks
    places = np.repeat(first, counts) + _counted(counts)
    pairs = np.stack([np.repeat(rows, counts), rows[places]], axis=1)
    return _unique(pairs[pairs[:, 0] != pairs[:, 1]])


def _counted(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... for every count, end to end."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _unique(pairs: np.ndarray) -> np.ndarray:
    """Sorted, each once; numbers are below 2**31."""
    joined = np.unique(pairs[:, 0].astype(np.uint64) << _LOW | pairs[:, 1].astype(np.uint64))
    both = [joined >> _LOW, joined & _NUMBER]
    return np.stack(both, axis=1).astype(np.int64)

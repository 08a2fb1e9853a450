"""Exact deduplication by 64-bit hashes, in bounded memory.

Memory: 8 bytes for every document seen and the same again while two sorted arrays are merged, plus a set of
at most `RECENT` hashes (10 MB): 10 million documents take 80 MB, 170 MB at the peak. Two different documents
share a hash with probability n^2 / 2^65: 3 in a million for 10 million documents.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from mengya.text.indentation import has_indentation, indentation

RECENT = 1 << 17


def text_hash(text: str) -> int:
    """64 bits of BLAKE2b of the text, to the letter."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def squeeze(text: str) -> str:
    """The text without its case and white space, but for the indentation of lines, which code needs."""
    if not has_indentation(text):
        return "".join(text.split()).casefold()
    parts = []
    for line in text.split("\n"):
        if white_space := indentation(line):
            parts.append(f"\n{white_space}")
        parts += line.split()
    return "".join(parts).casefold()


class SeenHashes:
    """A set of uint64 that holds millions: one sorted array, and a small set merged into it when full."""

    def __init__(self, hashes: np.ndarray | None = None) -> None:
        self._sorted = np.unique(hashes) if hashes is not None else np.zeros(0, np.uint64)
        self._recent: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def add(self, hashes: np.ndarray) -> np.ndarray:
        """Add uint64 `hashes`; bool for each: true when it was not there before, nor earlier in this call."""
        at = np.searchsorted(self._sorted, hashes)
        new = np.ones(len(hashes), bool)
        inside = at < len(self._sorted)
        new[inside] = self._sorted[at[inside]] != hashes[inside]
        for index in np.flatnonzero(new).tolist():
            value = int(hashes[index])
            new[index] = value not in self._recent
            self._recent.add(value)
        if len(self._recent) >= RECENT:
            fresh = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._recent.clear()
            self._sorted = np.concatenate([self._sorted, fresh])
            self._sorted.sort(kind="stable")
        return new

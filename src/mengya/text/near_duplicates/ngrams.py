"""Texts -> 64-bit hashes of their character n-grams, in numpy and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mengya.runtime.hashing import mix64

SLAB = 1 << 19  # characters that are hashed at once


def plain(text: str) -> str:
    """What two texts are compared by: without white space and case."""
    return "".join(text.split()).casefold()


def hashed_ngrams(texts: Sequence[str], n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The n-grams of texts, a slab at a time: (number of the text int64 [G], hash uint64 [G]).

    A text of fewer than n characters is one n-gram; one without any has none.
    """
    padded = [found and found.ljust(n, "\0") for found in map(plain, texts)]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), "<u4")
    ends = np.cumsum([len(text) for text in padded], dtype=np.int64)
    for begin in range(0, len(codes) - n + 1, SLAB):
        stop = min(begin + SLAB, len(codes) - n + 1)
        places = np.arange(begin, stop)
        owner = np.searchsorted(ends, places, side="right")
        inside = places + n <= ends[owner]
        yield owner[inside], _hashes(codes[begin : stop + n - 1], n)[inside]


def _hashes(codes: np.ndarray, n: int) -> np.ndarray:
    """uint64 of every n-gram of uint32 code points: a multilinear hash (odd factors), mixed."""
    factors = mix64(np.arange(1, n + 1, dtype=np.uint64)) | np.uint64(1)
    count = len(codes) - n + 1
    total = np.zeros(count, np.uint64)
    for place in range(n):
        total += codes[place : place + count].astype(np.uint64) * factors[place]
    return mix64(total)

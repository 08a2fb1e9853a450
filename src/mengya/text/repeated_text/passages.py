"""A text -> its passages: where they stand, and a 64-bit hash of each; and a text without some of them.

A suffix array would find every common substring, at ten times the text in memory. Here every window of n
characters is hashed, and those whose hash is a multiple of 8 are passages: the same ones wherever the text
stands, so a common run of n + 40 characters is missed once in 200, and of one that is found all but some
eight characters at each end.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from mengya.runtime.hashing import GOLDEN_GAMMA, mix64
from mengya.text.duplicates import text_hash
from mengya.text.repeated_text.config import RepeatedTextConfig

ONE_IN = np.uint64(8)
_INVERSE = np.uint64(pow(int(GOLDEN_GAMMA), -1, 1 << 64))
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


class Passages(NamedTuple):
    """Int64 [S] where passages begin and end in a text, and uint64 [S] their hashes."""

    starts: np.ndarray
    ends: np.ndarray
    hashes: np.ndarray


def passages(text: str, config: RepeatedTextConfig) -> Passages:
    """Those of a text that could repeat one of another."""
    find = _lines if config.unit == "line" else _windows
    return find(text, config.min_characters)


def without(text: str, found: Passages, chosen: np.ndarray) -> str:
    """The text without the chosen passages (bool [S]), and without the blank line that one leaves."""
    kept, begin = "", 0
    for start, end in _joined(found.starts[chosen], found.ends[chosen]):
        kept = _append(kept, text[begin:start])
        begin = end
    return _append(kept, text[begin:])


def _append(kept: str, more: str) -> str:
    blank = not kept or kept.endswith("\n\n")
    return kept + (more.lstrip("\n") if blank else more)


def _joined(starts: np.ndarray, ends: np.ndarray) -> list[tuple[int, int]]:
    """Spans in order, those that overlap as one."""
    spans: list[tuple[int, int]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def _lines(text: str, least: int) -> Passages:
    """Every line of at least so many characters, with its line end."""
    found = []
    for line in _LINE.finditer(text):
        plain = "".join(line[0].split()).casefold() if len(line[0]) >= least else ""
        if len(plain) >= least:
            found.append((line.start(), line.end(), text_hash(plain)))
    starts, ends, hashes = zip(*found, strict=True) if found else ((), (), ())
    return Passages(
        np.array(starts, np.int64), np.array(ends, np.int64), np.array(hashes, np.uint64)
    )


def _windows(text: str, length: int) -> Passages:
    """Windows of so many characters, chosen by their hash: a polynomial of the mixed code points."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    count = max(len(codes) - length + 1, 0)
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(mix64(codes) * _powers(GOLDEN_GAMMA, len(codes)), out=sums[1:])
    # The inverse makes the value of a window independent of its place.
    hashes = mix64((sums[length:] - sums[:count]) * _powers(_INVERSE, count)) if count else sums[:0]
    starts = np.flatnonzero(hashes % ONE_IN == 0)
    return Passages(starts, starts + length, hashes[starts])


def _powers(base: np.uint64, count: int) -> np.ndarray:
    """uint64 [count], base to the power of 0, 1, ... modulo 2**64."""
    powers = np.full(count, base)
    powers[:1] = 1
    return np.multiply.accumulate(powers)

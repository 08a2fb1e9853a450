"""Text that repeats sequences of letters wherever its lines end, and loops.

Digits, punctuation, white space, code and the Latin letters of a Chinese text do not count, so tables of
numbers, links and formulas are no repetition.
"""

from __future__ import annotations

import numpy as np

from mengya.text.filters.config import NgramsFilter
from mengya.text.filters.markdown import prose
from mengya.text.scripts import HAN, LETTERS, code_points, scripts_of

MAX_PERIOD = 64
MIN_TOP = 6
_MULTIPLIER = np.uint32(0x9E3779B1)


class RepeatedNgrams:
    """repeated_ngrams, top_ngram or loop."""

    def __init__(self, config: NgramsFilter) -> None:
        self._config = config

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None.

        Every repeat of a sequence repeats its half, so a count of halves tells most texts from these three.
        """
        config = self._config
        if len(text) < config.min_letters:
            return None
        letters = compared_letters(prose(text), config.min_letters)
        if len(letters) < max(config.min_letters, config.n):
            return None
        half, size = config.n // 2, len(letters)
        halves = ngram_hashes(letters, half)
        repeats = count_repeats(halves)
        most_repeats = config.max_repeated * (size - config.n + 1)
        if repeats > most_repeats and count_repeats(_joined(halves, halves[half:])) > most_repeats:
            return "repeated_ngrams"
        if (repeats + 1) * half > config.max_top * size:
            highest = highest_count(halves)
            if highest >= MIN_TOP and highest * half > config.max_top * size:
                return "top_ngram"
        if repeats + half < config.max_loop * size * 2 / 3:
            return None
        return "loop" if longest_loop(letters) > config.max_loop * size else None


def compared_letters(text: str, min_letters: int) -> np.ndarray:
    """[N] uint32: the code points of the Chinese characters, or of all letters when those are too few.

    Latin letters of a Chinese text are names, addresses and formulas, which repeat with good reason.
    """
    scripts, codes = scripts_of(text), code_points(text)
    chinese = codes[HAN.take(scripts, mode="clip")]
    return chinese if len(chinese) >= min_letters else codes[LETTERS.take(scripts, mode="clip")]


def count_repeats(hashes: np.ndarray) -> int:
    """The number of sequences that stood before."""
    hashes = np.sort(hashes)
    return int(np.count_nonzero(hashes[1:] == hashes[:-1]))


def highest_count(hashes: np.ndarray) -> int:
    """How often the most frequent sequence stands in the text."""
    hashes = np.sort(hashes)
    first = np.flatnonzero(hashes[1:] != hashes[:-1])
    return int(np.diff(first, prepend=-1, append=len(hashes) - 1).max())


def ngram_hashes(codes: np.ndarray, n: int) -> np.ndarray:
    """[N - n + 1] uint32: a hash of every n characters, made of those of halves.

    Two that differ are equal in one of 4 billion pairs, which moves a share by nothing that matters.
    """
    hashes, length = codes * _MULTIPLIER, 1
    for bit in bin(n)[3:]:
        hashes = _joined(hashes, hashes[length:])
        length *= 2
        if bit == "1":
            hashes = _joined(hashes, codes[length:])
            length += 1
    return hashes


def _joined(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    mixed = left[: len(right)] * _MULTIPLIER
    mixed ^= mixed >> np.uint32(15)
    mixed += right[: len(mixed)]
    return mixed


def longest_loop(codes: np.ndarray) -> int:
    """Characters of the longest stretch that repeats a unit of at most `MAX_PERIOD` three times or more."""
    longest = 0
    for period in range(1, min(MAX_PERIOD, len(codes) // 3) + 1):
        differs = np.flatnonzero(codes[period:] != codes[:-period])
        edges = np.concatenate([[-1], differs, [len(codes) - period]])
        stretch = int(np.diff(edges).max()) - 1 + period
        if stretch >= 3 * period:
            longest = max(longest, stretch)
    return longest

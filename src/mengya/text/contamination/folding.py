"""Texts -> the characters that are compared, many texts in one array.

Kept are letters and digits, after NFKC and case folding of every character by itself; punctuation, symbols,
white space, control characters, and the escapes \\n, \\r and \\t as JSON writes them are removed. Texts are
expected in NFC, which `mengya prepare` makes: looking at each character alone joins none that stand apart.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

_LINE_END, _BACKSLASH = 10, 92
_ESCAPED = np.array([ord(letter) for letter in "nrt"], np.uint32)
_SEVERAL = 0x110000  # in the table: this and above is the number of a string of several characters
_IDEOGRAPHS = range(0x20000, 0x2F800), range(0x30000, 0x32400)  # all stay what they are


@dataclass(frozen=True)
class Folded:
    """What is kept of N texts, end to end.

    Attributes:
        codes: [K] uint32 code points.
        texts: [N + 1] where each text begins in `codes`, and K.
        lines: [L + 1] where each line begins, and K; a text begins a line.
    """

    codes: np.ndarray
    texts: np.ndarray
    lines: np.ndarray

    def string(self, start: int, stop: int) -> str:
        """The kept characters [start, stop)."""
        return self.codes[start:stop].astype("<u4").tobytes().decode("utf-32-le")


def fold(texts: Sequence[str]) -> Folded:
    """Fold many texts (one at least) at once: numpy's fixed cost is that of one."""
    table, several = _table()
    raw = np.frombuffer("\n".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
    kept = table[raw]
    ends = raw == _LINE_END
    escapes = np.flatnonzero(raw[:-1] == _BACKSLASH)
    escapes = escapes[np.isin(raw[escapes + 1], _ESCAPED)]
    kept[escapes + 1] = 0
    ends[escapes[raw[escapes + 1] == _ESCAPED[0]]] = True
    begins = np.concatenate([[0], np.flatnonzero(ends) + 1])
    places = np.flatnonzero(kept)
    codes, lines = kept[places], np.searchsorted(places, np.append(begins, len(raw)))
    codes, lines = _write_out(codes, lines, several)
    number_of_lines = [text.count("\n") + 1 for text in texts]
    first_raw = np.concatenate([[0], np.cumsum(number_of_lines)])
    if len(escapes):  # escaped line ends make lines of their own: count real ones only
        real = np.concatenate([[True], raw[begins[1:] - 1] == _LINE_END])
        first_raw = np.concatenate([np.flatnonzero(real), [len(begins)]])[first_raw]
    return Folded(codes, lines[first_raw], lines)


def fold_strings(texts: Sequence[str]) -> list[str]:
    """What is kept of each text, as a string; the texts need not be in NFC."""
    if not texts:
        return []
    folded = fold([unicodedata.normalize("NFC", text) for text in texts])
    places = folded.texts.tolist()
    every = folded.string(0, len(folded.codes))
    return [every[start:stop] for start, stop in pairwise(places)]


def codes_of(folded: str) -> np.ndarray:
    """[K] uint32 code points of a string."""
    return np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), "<u4")


def _write_out(
    codes: np.ndarray, places: np.ndarray, several: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The codes with those that stand for several characters written out, and `places` moved with them."""
    marks = np.flatnonzero(codes >= _SEVERAL)
    if not len(marks):
        return codes, places
    strings = [several[code - _SEVERAL] for code in codes[marks].tolist()]
    lengths = np.array([len(string) for string in strings])
    counts = np.ones(len(codes), np.int64)
    counts[marks] = lengths
    longer = np.concatenate([[0], np.cumsum(lengths - 1)])
    written = np.repeat(codes, counts)
    filled = np.repeat(counts > 1, counts)
    written[filled] = np.frombuffer("".join(strings).encode("utf-32-le"), "<u4")
    return written, places + longer[np.searchsorted(marks, places)]


@cache
def _table() -> tuple[np.ndarray, list[str]]:
    """[0x110000] uint32: 0 for what is removed, else a code point, else _SEVERAL + index into the list."""
    table = np.zeros(0x110000, np.uint32)
    for block in _IDEOGRAPHS:
        table[block.start : block.stop] = np.arange(block.start, block.stop)
    several: list[str] = []
    for code in (*range(0x20000), *range(0x2F800, 0x2FA20)):
        form = _kept(chr(code))
        if len(form) == 1:
            table[code] = ord(form)
        elif form:
            table[code] = _SEVERAL + len(several)
            several.append(form)
    return table, several


def _kept(character: str) -> str:
    form = unicodedata.normalize("NFKC", character).casefold()
    return "".join(c for c in form if unicodedata.category(c)[0] in "LMN")

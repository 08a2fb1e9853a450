"""Whether a text ends in a loop: the same characters again and again until it stops or is cut.

Takes a text; gives the repeated unit, or None. Knows no tokens: the same meter serves every model. For
answers; training text has filters of its own (filters.ngrams), which look for loops anywhere in a document.

A text ends in a loop when its last characters have a period p <= MAX_PERIOD (each character equals the one p
before it) over at least MIN_REPEATS periods and MIN_CHARACTERS characters. Since only the period counts, the
last repeat may be cut anywhere. It is looked for in three views of the text:

- as written, with white space collapsed, case folded and full-width forms narrowed;
- without punctuation, so that commas that come and go hide nothing;
- without punctuation and with every number (arabic or Chinese) as one digit, so that counters such as
  "1. ... 2. ..." hide nothing. Tables and dates look alike in this view, so it takes MIN_COUNTED repeats of a
  unit with two letters.

A unit without a letter (rules, dots, empty cells, rows of figures) takes MIN_SYMBOLS characters, since honest
text draws lines.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

MAX_PERIOD = 128
MIN_REPEATS = 3
MIN_CHARACTERS = 40
MIN_COUNTED = 5  # repeats
MIN_SYMBOLS = 160  # characters

_TAIL = 2048  # characters of the end that are looked at, before anything is left out
_SPACE = re.compile(r"\s+")
_NOT_WORD = re.compile(r"[\W_]+")
_NUMBER = re.compile(r"\d+|[零〇一二三四五六七八九十百千万亿两]+")
_LETTER = re.compile(r"[^\W\d_]")


class Loop(NamedTuple):
    """
    Attributes:
        unit: what is repeated, as the view shows it; it may begin anywhere in the repeated text.
        repeats: how many times, the cut one as a fraction.
    """

    unit: str
    repeats: float


def ending_loop(text: str) -> Loop | None:
    """The loop in which `text` ends, None where it does not."""
    written = _SPACE.sub(" ", unicodedata.normalize("NFKC", text[-_TAIL:]).casefold()).strip()
    words = _NOT_WORD.sub("", written)
    for view in (written, words):
        if loop := _periodic_end(view, MIN_REPEATS):
            return loop
    loop = _periodic_end(_NUMBER.sub("0", words), MIN_COUNTED)
    return loop if loop and len(_LETTER.findall(loop.unit)) > 1 else None


def _periodic_end(view: str, min_repeats: int) -> Loop | None:
    """The shortest period with which the view ends, if it covers enough."""
    backwards = view[::-1]
    for period, match in enumerate(_prefix_lengths(backwards)[: MAX_PERIOD + 1]):
        if period == 0 or match == 0:
            continue
        covered = period + match
        unit = view[len(view) - period :]
        least = MIN_CHARACTERS if _LETTER.search(unit) else MIN_SYMBOLS
        if covered >= max(least, min_repeats * period):
            return Loop(unit, covered / period)
    return None


def _prefix_lengths(text: str) -> list[int]:
    """For each place, how many characters from there on equal the text's first ones (the Z function).

    In linear time: Gusfield, Algorithms on Strings, Trees and Sequences, 1997, section 1.4.
    """
    lengths = [0] * len(text)
    left = right = 0
    for place in range(1, len(text)):
        length = min(right - place, lengths[place - left]) if place < right else 0
        while place + length < len(text) and text[length] == text[place + length]:
            length += 1
        lengths[place] = length
        if place + length > right:
            left, right = place, place + length
    return lengths

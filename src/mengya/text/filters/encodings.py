"""Text that was decoded wrongly, or lost characters before it came here. Code does not count."""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from mengya.text.filters.config import EncodingFilter
from mengya.text.filters.markdown import prose
from mengya.text.scripts import code_points

_BROKEN = re.compile(
    "\ufffd+|(?:锟斤拷)+|锟斤|(?:烫烫|屯屯|葺葺)[烫屯葺]+"
    # UTF-8 of Chinese or of typographic marks, read as Latin-1 or Windows-1252
    "|[äåæçèéïâã](?:[\x80-\xbf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013\u2014\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]){2}"
    # GBK read as Latin-1: 中文 is ÖÐÎÄ
    "|(?:[\xb0-\xb6\xb8-\xd6\xd8-\xf6][\xa1-\xb6\xb8-\xd6\xd8-\xf6\xf8-\xfe]){3,}"
    # UTF-8 of Chinese, read as GBK: the first bytes of 的，。是在“ and others give characters that
    # nobody writes
    "|[锛銆鐨鈥鏄鍦鍜鎴鍙鐢鏈绗][\u4e00-\u9fff\ue000-\uf8ff€?]"
)


_FIRST_OF_GBK = "锛銆鐨鈥鏄鍦鍜鎴鍙鐢鏈绗"


@cache
def _marks() -> np.ndarray:
    """[65536] bool: the characters of which a find has many."""
    table = np.zeros(0x10000, bool)
    table[[ord(mark) for mark in "\ufffd锟烫屯葺" + _FIRST_OF_GBK]] = True
    table[0xA1:0x100] = True
    return table


class BrokenEncoding:
    """broken_encoding."""

    def __init__(self, config: EncodingFilter) -> None:
        self._config = config

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None."""
        text = prose(text)  # bytes that a book about programs shows are no fault
        # Every find of n characters has n / 3 of these or more, and most texts have none.
        marks = int(np.count_nonzero(_marks().take(code_points(text), mode="clip")))
        if 3 * marks <= self._config.max_share * len(text):
            return None
        broken = sum(map(len, _BROKEN.findall(text)))
        return "broken_encoding" if broken > self._config.max_share * len(text) else None

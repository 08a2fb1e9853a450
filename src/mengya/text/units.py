"""Text in the units that Chinese writers count: Chinese characters, words of other letters, numbers.

Punctuation and white space are none. Needs no dictionary, so that figures do not change with one.
"""

from __future__ import annotations

import re

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff〇"
"""Chinese characters, as ranges of a regular expression."""

_UNIT = re.compile(rf"[{HAN}]|[^\W_{HAN}]+")


def count_units(text: str) -> int:
    return len(_UNIT.findall(text))


def text_units(text: str) -> list[str]:
    """The units in their order, case folded."""
    return _UNIT.findall(text.casefold())

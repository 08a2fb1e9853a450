"""Sentences with {slots} -> text, with spaces between Chinese characters and Latin letters where wanted."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SLOT = re.compile(r"\{(\w+)\}")
_HAN = re.compile(r"[\u3400-\u9fff]")
_LATIN = re.compile(r"[A-Za-z0-9]")


def fill(sentence: str, values: Mapping[str, str], spaced: bool = True) -> str:
    """The sentence with its slots filled.

    Args:
        spaced: 我是 Mia rather than 我是Mia, as Chinese is set; the values themselves stay as they are.
    """

    def value(match: re.Match[str]) -> str:
        text = values[match[1]]
        if not spaced:
            return text
        before, after = sentence[match.start() - 1 : match.start()], sentence[match.end() :][:1]
        left = " " if _HAN.match(before) and _LATIN.match(text) else ""
        right = " " if _HAN.match(after) and _LATIN.match(text[-1]) else ""
        return f"{left}{text}{right}"

    return _SLOT.sub(value, sentence)


def slots(sentence: str) -> set[str]:
    """The names of its slots."""
    return set(_SLOT.findall(sentence))

"""What a model wrote -> questions and answers, or a list of texts. Models do not always write what was asked.

Read are: a JSON list in any surroundings (a code fence, a sentence before it), also one that was cut; objects
one after the other; lines that begin with 问 and 答. What is before `</think>` is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from mengya.text.thinking import without_thinking

_ASKED = re.compile(
    r"^\s*(?:\d+[.、)]\s*)?(?:\*\*)?(?:问题?|Q|question)\s*\d*\s*[:：](?:\*\*)?\s*(.+?)\s*"
    r"^\s*(?:\*\*)?(?:答案?|回答|A|answer)\s*\d*\s*[:：](?:\*\*)?\s*(.+?)\s*"
    r"(?=^\s*(?:\d+[.、)]\s*)?(?:\*\*)?(?:问题?|Q|question)\s*\d*\s*[:：]|\Z)",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
_NUMBERED = re.compile(r"^\s*(?:\d+[.、)）]|[-*•])\s*(.+?)\s*$", re.MULTILINE)
_MOST_FAILED = 50  # places where something like JSON begins and is none: the rest is not looked at
_QUESTION = ("question", "问题", "问", "q", "instruction", "指令", "query")
_ANSWER = ("answer", "答案", "回答", "答", "a", "output", "response")


class Pair(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str


def read_pairs(text: str) -> list[Pair]:
    """The questions and answers of a reply, in order; none when there are none in a form that is known."""
    text = without_thinking(text)
    pairs = [pair for value in _values(text) if (pair := _pair(value)) is not None]
    return pairs or [Pair(*(part.strip() for part in found)) for found in _ASKED.findall(text)]


def read_texts(text: str) -> list[str]:
    """The texts of a list in a reply, in order."""
    text = without_thinking(text)
    texts = [one.strip() for value in _values(text) if (one := _text(value))]
    return texts or [found.strip() for found in _NUMBERED.findall(text)]


def is_empty_list(text: str) -> bool:
    """Whether the model says that there is nothing to write."""
    return re.sub(r"```\w*|\s", "", without_thinking(text)) == "[]"


def _values(text: str) -> Iterator[Any]:
    """The items of the JSON lists, and the objects outside lists, that the text holds."""
    decoder = json.JSONDecoder(strict=False)  # line breaks within strings
    at, failed = 0, 0
    while failed < _MOST_FAILED and (start := _next(text, at)) >= 0:
        try:
            value, at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            at = start + 1  # a list that was cut: its complete items are found one by one
            failed += 1
            continue
        yield from value if isinstance(value, list) else [value]


def _next(text: str, at: int) -> int:
    """Where the next list or object begins, or the next string of a list that was cut."""
    found = re.compile(r'[\[{]|(?<=[\[,\n])\s*"(?=[^"\n]{4,}"\s*(?:,|\]))').search(text, at)
    if found is None:
        return -1
    return found.end() - 1


def _pair(value: Any) -> Pair | None:
    if not isinstance(value, dict):
        return None
    lower = {str(name).casefold(): text for name, text in value.items()}
    question = next((lower[name] for name in _QUESTION if name in lower), None)
    answer = next((lower[name] for name in _ANSWER if name in lower), None)
    if isinstance(question, str) and isinstance(answer, str):
        return Pair(question.strip(), answer.strip())
    return None


def _text(value: Any) -> str | None:
    """A text, also as the only or the known field of an object."""
    if isinstance(value, dict):
        lower = {str(name).casefold(): text for name, text in value.items()}
        value = next((lower[name] for name in _QUESTION if name in lower), None)
    return value if isinstance(value, str) else None

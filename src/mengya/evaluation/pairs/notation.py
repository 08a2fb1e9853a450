"""How the lexicons write many sentences in one line.

    (他|小明)高兴_跳了起来。     alternatives, and a slot for the word in question
    我<昨天><买了书>。           two segments that the wrong sentence exchanges

Knows nothing of Chinese.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import Any

import yaml

SLOT = "_"
_ALTERNATIVES = re.compile(r"\(([^()]*)\)")
_SEGMENTS = re.compile(r"^(.*?)<(.+?)>(.*?)<(.+?)>(.*)$")
_LOADER = getattr(
    yaml, "CBaseLoader", yaml.BaseLoader
)  # every scalar is a string: 1919 is no number


def read_lexicons(folder: Traversable) -> dict[str, Any]:
    """The top-level keys of every YAML file of `folder`, files in the order of their names."""
    files = sorted(
        (f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda file: file.name
    )
    return {
        key: values
        for file in files
        for key, values in yaml.load(file.read_text("utf-8"), _LOADER).items()
    }


def readings(template: str, count: int) -> list[str]:
    """`count` different readings of the alternatives of `template`, or all when it has fewer.

    The choice looks random and depends on the template alone, so that a line that is added to a lexicon
    changes no other.
    """
    parts = _ALTERNATIVES.split(template)  # literal, alternatives, literal, ...
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    total = math.prod(map(len, choices))
    numbers = random.Random(template).sample(range(total), min(count, total))
    return [_reading(choices, number) for number in numbers]


def _reading(choices: list[list[str]], number: int) -> str:
    """The reading of that number: one digit a group of alternatives."""
    words = []
    for alternatives in choices:
        number, digit = divmod(number, len(alternatives))
        words.append(alternatives[digit])
    return "".join(words)


def fill(sentence: str, word: str) -> str:
    """`sentence` with `word` in its only slot.

    Raises:
        ValueError: no slot, or several.
    """
    before, slot, after = sentence.partition(SLOT)
    if not slot or SLOT in after:
        raise ValueError(f"{sentence} has not exactly one {SLOT}")
    return before + word + after


def exchanged(sentence: str) -> tuple[str, str]:
    """`sentence` as it stands, and with its two <segments> exchanged.

    Raises:
        ValueError: not two segments.
    """
    if not (found := _SEGMENTS.match(sentence)):
        raise ValueError(f"{sentence} has not two <segments>")
    before, first, between, second, after = found.groups()
    return before + first + between + second + after, before + second + between + first + after


def contexts(written: str | list[str]) -> list[str]:
    """A lexicon's entry: one template, or a list."""
    return [written] if isinstance(written, str) else written


def framed(
    block: Mapping[str, str | list[str]], count: int, frames: list[str], turn: int
) -> dict[str, list[str]]:
    """The sentences of each word of a block: `count` readings of each of its templates.

    With frames, a template is a phrase that stands in `count` of them (at {}), beginning with frame
    number `turn`; so the phrases of all words stand in the same frames.
    """
    return {
        word: [
            sentence
            for template in contexts(written)
            for sentence in (
                _in_frames(template, count, frames, turn) if frames else readings(template, count)
            )
        ]
        for word, written in block.items()
    }


def _in_frames(phrase: str, count: int, frames: list[str], turn: int) -> list[str]:
    chosen = [frames[(turn + i) % len(frames)] for i in range(min(count, len(frames)))]
    return [readings(frame.replace("{}", phrase), 1)[0] for frame in chosen]

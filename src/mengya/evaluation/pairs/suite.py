"""The suite that ships: minimal pairs and cloze, made from the lexicons. The same items everywhere.

Also what both share with the knowledge probe: parts of a lexicon as numbered items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files

from mengya.evaluation.pairs.choice import Choice, likeliest
from mengya.evaluation.pairs.notation import read_lexicons
from mengya.evaluation.pairs.rules import RULES, Part
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult

LEXICON = files("mengya.evaluation.pairs") / "lexicon"


def pairs(subject: Subject, config: YardstickConfig) -> YardstickResult:
    """Minimal pairs: how often the right one of two sentences is the likelier."""
    return likeliest("pairs", subject, minimal_pairs(), config.limit)


def cloze(subject: Subject, config: YardstickConfig) -> YardstickResult:
    """Cloze: how often the right one of four words or endings is the likeliest."""
    return likeliest("cloze", subject, cloze_items(), config.limit)


@cache
def minimal_pairs() -> tuple[Choice, ...]:
    """Every item with one wrong sentence."""
    return tuple(choices(read_lexicons(LEXICON / "pairs")))


@cache
def cloze_items() -> tuple[Choice, ...]:
    """Every item with three wrong sentences."""
    return tuple(choices(read_lexicons(LEXICON / "cloze")))


def choices(parts: Mapping[str, Part]) -> Iterator[Choice]:
    """The items of each part by its rule, numbered."""
    for name, part in parts.items():
        for number, (good, bad) in enumerate(RULES[part["rule"]](part)):
            yield Choice(name, f"{name}-{number:03}", good, bad)

"""The knowledge probe: each fact in two wordings, its answer among four of the same kind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from mengya.evaluation.pairs.choice import Choice, likeliest
from mengya.evaluation.pairs.notation import read_lexicons
from mengya.evaluation.pairs.rules import one_of_all
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult

FACTS = files("mengya.evaluation.knowledge") / "facts"


def knowledge(subject: Subject, config: YardstickConfig) -> YardstickResult:
    """How often the right one of four answers makes the likeliest sentence."""
    return likeliest("knowledge", subject, knowledge_items(), config.limit)


@cache
def knowledge_items() -> tuple[Choice, ...]:
    """Every fact in both wordings; a domain is a part."""
    return tuple(_items())


def _items() -> Iterator[Choice]:
    for domain, relations in read_lexicons(FACTS).items():
        blocks = [block for relation in relations for block in _blocks(relation)]
        for number, (good, bad) in enumerate(one_of_all({"blocks": blocks})):
            yield Choice(domain, f"{domain}-{number:03}", good, bad)


def _blocks(relation: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
    """A relation's blocks as {answer: its two sentences}.

    Written as {subject: answer} with two frames, which have the subject at {} and the answer at the slot; or
    without frames, as the sentences themselves.
    """
    for block in relation["facts"]:
        if frames := relation.get("frames"):
            yield {
                answer: [frame.replace("{}", subject) for frame in frames]
                for subject, answer in block.items()
            }
        else:
            yield block

"""Which wordings of the questions are trained on and which are kept for the test."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from mengya.synthesis.identity.parts import Language, Topic

_OPENING = re.compile(r"^(你好|您好|嗨|请问|对了|那|哦|喂|好吧|所以|原来如此|老实说)[，,]?")
_TOO_FEW = 4  # wordings of a topic, none of which is held out


def wording_key(question: str) -> str:
    """What two wordings have in common that differ in openings and punctuation only."""
    full = bare = "".join(c for c in question if c.isalnum() or c in "{}_").casefold()
    while (shorter := _OPENING.sub("", bare)) not in (bare, ""):
        bare = shorter
    return bare.rstrip("呀啊呢吧") or full


def held_out_wordings(languages: Iterable[Language], share: float, seed: int) -> set[str]:
    """Keys of the wordings that are held out: about `share` of each topic with four or more, one at least."""
    held: set[str] = set()
    if share == 0:
        return held
    for language in languages:
        for topic in (*language.topics, *language.second_turns):
            keys = sorted({wording_key(question) for question in topic.questions})
            if len(keys) < _TOO_FEW:
                continue
            random.Random(f"{seed}/{language.code}/{topic.name}").shuffle(keys)
            held.update(keys[: max(1, round(share * len(keys)))])
    return held


def questions_of(topic: Topic, held: set[str], held_out: bool) -> list[str]:
    """The questions of a topic on one side of the split."""
    return [question for question in topic.questions if (wording_key(question) in held) == held_out]

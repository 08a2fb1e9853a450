"""Texts, copies of them with some characters changed, and their exact similarity."""

from __future__ import annotations

import random

LETTERS = (
    "春天来了小镇上的花都开老王在河边钓鱼女儿坐旁看书山里有座庙雨后蘑菇长满坡路人问今年收成怎样"
)


def text(rng: random.Random, length: int = 200) -> str:
    return "".join(rng.choices(LETTERS, k=length))


def changed(rng: random.Random, text: str, characters: int = 1) -> str:
    """With so many characters replaced, by others than any text has."""
    letters = list(text)
    for place in rng.sample(range(len(letters)), characters):
        letters[place] = chr(rng.randint(0x5000, 0x5FFF))
    return "".join(letters)


def ngrams(text: str) -> set[str]:
    return {text[at : at + 5] for at in range(len(text) - 4)}


def jaccard(a: str, b: str) -> float:
    return len(ngrams(a) & ngrams(b)) / len(ngrams(a) | ngrams(b))

"""The rules that make items of a lexicon's part: a right sentence with one wrong one, or with three.

Every rule is balanced: where the sentences differ by a word, each word is right as often as it is wrong
against the same other words. A judge that looks at words without their context scores chance, whatever
it prefers. Where they differ by order, both have the same characters.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

from mengya.evaluation.pairs.notation import exchanged, fill, framed, readings

Sentences = tuple[str, tuple[str, ...]]  # the right one, the wrong ones
Part = Mapping[str, Any]  # as the lexicon has it; all scalars are strings


def contrast(part: Part) -> Iterator[Sentences]:
    """blocks: {word: templates}. Two words of a block compete, each in contexts of its own.

    Items come in twos that mirror each other: A right and B wrong, then B right and A wrong. The contexts
    of a word are dealt out evenly to the other words of its block.
    """
    for block in _blocks(part):
        for first, second in combinations(block, 2):
            for a, b in zip(
                _dealt(block, first, second), _dealt(block, second, first), strict=False
            ):
                yield fill(a, first), (fill(a, second),)
                yield fill(b, second), (fill(b, first),)


def one_of_all(part: Part) -> Iterator[Sentences]:
    """blocks: {word: templates}. All words of a block compete in each of its contexts.

    Items come in groups of one context a word.
    """
    for block in _blocks(part):
        for group in zip(*block.values(), strict=False):
            for right, sentence in zip(block, group, strict=True):
                wrong = tuple(fill(sentence, word) for word in block if word != right)
                yield fill(sentence, right), wrong


def reorder(part: Part) -> Iterator[Sentences]:
    """sentences: templates with two <segments>; the wrong sentence exchanges them."""
    for template in part["sentences"]:
        for sentence in readings(template, int(part.get("readings", 1))):
            right, wrong = exchanged(sentence)
            yield right, (wrong,)


def idiom_order(part: Part) -> Iterator[Sentences]:
    """idioms: of four characters; the wrong sentence exchanges the second and the fourth."""
    frames = part["frames"]
    for turn, (a, b, c, d) in enumerate(part["idioms"].split()):
        right, wrong = exchanged(frames[turn % len(frames)].replace("{}", f"{a}<{b}>{c}<{d}>"))
        yield right, (wrong,)


def measure_words(part: Part) -> Iterator[Sentences]:
    """nouns: {measure words that are accepted, the usual one first: nouns}; frames.

    Two nouns that accept the other's usual measure word are never put together.
    """
    nouns = [
        (noun, accepted.split())
        for accepted, written in part["nouns"].items()
        for noun in written.split()
    ]
    frames = part["frames"]
    for turn in range(int(part["readings"])):
        remaining = random.Random(turn).sample(nouns, len(nouns))
        while remaining:
            first, accepted = remaining.pop()
            partner = next(
                (other for other in remaining if not _share_usual(accepted, other[1])), None
            )
            if partner is None:
                continue
            remaining.remove(partner)
            frame = frames[(turn + len(remaining)) % len(frames)]
            block = {accepted[0]: "_" + first, partner[1][0]: "_" + partner[0]}
            yield from contrast({"blocks": [block], "frames": [frame]})


def _share_usual(first: list[str], second: list[str]) -> bool:
    return first[0] in second or second[0] in first


def _blocks(part: Part) -> Iterator[dict[str, list[str]]]:
    count, frames = int(part.get("readings", 1)), part.get("frames", [])
    for turn, block in enumerate(part["blocks"]):
        yield framed(block, count, frames, turn)


def _dealt(block: Mapping[str, list[str]], word: str, other: str) -> list[str]:
    """The contexts of `word` in which it meets `other`."""
    others = [name for name in block if name != word]
    return block[word][others.index(other) :: len(others)]


RULES: Mapping[str, Callable[[Part], Iterator[Sentences]]] = {
    "contrast": contrast,
    "idiom_order": idiom_order,
    "measure_words": measure_words,
    "one_of_all": one_of_all,
    "reorder": reorder,
}

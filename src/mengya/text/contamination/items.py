"""Exam items, and what is compared of them: folded strings, and the runs that say what the item says.

Knows no files and no exams.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

import numpy as np

from mengya.text.contamination.folding import codes_of, fold_strings
from mengya.text.contamination.ngrams import ngram_hashes

COMMON = 5  # different items; an n-gram that is in more is a phrase of exams
_QUOTED = re.compile(r"(“[^”]*”|「[^」]*」|\"[^\"]*\")")
_ASKS = re.compile(
    r"[?？]|哪|什么|多少|几|吗|谁|怎|如何|为何|是否|下列|以下|\b(?:what|which|who|when|where|why|how)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Item:
    """A question of an exam, and its options where it has any."""

    question: str
    options: tuple[str, ...] = ()


class FoldedItem(NamedTuple):
    """Folded characters of an item.

    Attributes:
        quoted: [begin, end) of what the question quotes.
        asks: whether it can only be a question: its words ask, or there are no options to complete it. A stem
            such as "必须向____提出申请" is a sentence of the law.
    """

    question: str
    options: tuple[str, ...]
    quoted: list[tuple[int, int]]
    asks: bool

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """The same for items that differ in the order of options at most."""
        return self.question, tuple(sorted(self.options))


def item_keys(items: Sequence[Item]) -> list[str]:
    """64 bits of each as hexadecimal: equal for items that are equal after folding, options in any order."""
    keys = ("\0".join([each.question, *each.key[1]]) for each in folded_items(items))
    return [blake2b(key.encode(), digest_size=8).hexdigest() for key in keys]


def folded_items(items: Sequence[Item]) -> list[FoldedItem]:
    """Fold all at once."""
    # NFC before it is cut: a piece may begin with a mark that belongs to the character before.
    pieces = [_QUOTED.split(unicodedata.normalize("NFC", item.question)) for item in items]
    texts = [t for cut, item in zip(pieces, items, strict=True) for t in (*cut, *item.options)]
    folded = iter(fold_strings(texts))
    result = []
    for cut, item in zip(pieces, items, strict=True):
        parts = list(islice(folded, len(cut)))
        ends = np.cumsum([len(part) for part in parts]).tolist()
        quoted = [(ends[at - 1], ends[at]) for at in range(1, len(parts), 2)]
        asks = len(item.options) < 2 or _ASKS.search(item.question) is not None
        options = tuple(islice(folded, len(item.options)))
        result.append(FoldedItem("".join(parts), options, quoted, asks))
    return result


def questions_asked(items: Sequence[FoldedItem]) -> Counter[str]:
    """How many different items ask each question."""
    return Counter(items[number].question for number in _different(items))


class Ngrams(NamedTuple):
    """Pairs of an n-gram's hash and an item that has it, each once, in the order of the hashes."""

    hashes: np.ndarray
    items: np.ndarray

    @staticmethod
    def of_pairs(hashes: np.ndarray, items: np.ndarray) -> Ngrams:
        order = np.lexsort((items, hashes))
        hashes, items = hashes[order], items[order]
        new = np.ones(len(hashes), bool)
        new[1:] = (hashes[1:] != hashes[:-1]) | (items[1:] != items[:-1])
        return Ngrams(hashes[new], items[new])

    def of(self, items: np.ndarray) -> Ngrams:
        """Those of some items: bool [items]."""
        return Ngrams(self.hashes[items[self.items]], self.items[items[self.items]])

    def without(self, hashes: np.ndarray) -> Ngrams:
        left = ~np.isin(self.hashes, hashes)
        return Ngrams(self.hashes[left], self.items[left])

    def joined(self, other: Ngrams) -> Ngrams:
        return Ngrams.of_pairs(*map(np.concatenate, zip(self, other, strict=True)))


def own_ngrams(items: Sequence[FoldedItem], n: int) -> tuple[Ngrams, Ngrams]:
    """Of the questions and of the options: those that are in at most COMMON different items.

    Runs inside a quotation of the question are left out: who quotes a poem did not write an exam.
    """
    questions = _ngrams_of([(i, item.question, item.quoted) for i, item in enumerate(items)], n)
    options = _ngrams_of(
        [(i, text, []) for i, item in enumerate(items) for text in item.options], n
    )
    different = np.zeros(len(items), bool)
    different[_different(items)] = True
    in_different = questions.joined(options).of(different).hashes
    values, counts = np.unique(in_different, return_counts=True)
    common = values[counts > COMMON]
    return questions.without(common), options.without(common)


def _different(items: Sequence[FoldedItem]) -> list[int]:
    """The number of the first of equal items, the order of options aside."""
    first: dict[tuple[str, tuple[str, ...]], int] = {}
    for number, item in enumerate(items):
        first.setdefault(item.key, number)
    return list(first.values())


def _ngrams_of(parts: Sequence[tuple[int, str, list[tuple[int, int]]]], n: int) -> Ngrams:
    """Of (item, text, ranges to leave out)."""
    lengths = np.array([len(text) for _, text, _ in parts], np.int64)
    begins = np.cumsum(lengths) - lengths
    hashes = ngram_hashes(codes_of("".join(text for _, text, _ in parts)), n)
    kept = np.arange(len(hashes)) + n <= np.repeat(begins + lengths, lengths)[: len(hashes)]
    for begin, (_, _, ranges) in zip(begins.tolist(), parts, strict=True):
        for start, stop in ranges:
            if stop - start >= n:
                kept[begin + start : begin + stop - n + 1] = False
    items = np.repeat(np.array([item for item, _, _ in parts], np.int64), lengths)[: len(hashes)]
    return Ngrams.of_pairs(hashes[kept], items[kept])

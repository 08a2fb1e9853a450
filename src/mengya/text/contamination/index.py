"""Which exam items stand in which texts: n-grams find candidates, a rule for each length of question decides.

Compared are folded characters (folding.py). With n = 13:

    long      25 characters or more (2n - 1): `share` of the question's own n-grams are in the text.
    short     13 to 24: the full question is in the text, and either it is a line of its own (a turn of a
              conversation begins a line) or half of the item's options stand near it. So a sentence that
              goes on as a textbook would ("...的核心内容是") does not count.
    tiny      6 to 12: the question is a line of its own, numbers before it left out, and no other item asks
              the same.
    stem      any length, when the question says nothing of its own ("下列说法正确的是"): `share` of the
              n-grams of its options, if there are n of them.
    unchecked all else.

An n-gram's own means: it is in at most `COMMON` different items. The options are compared one by one, so
their order does not matter. Knows no files and no exams.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

import numpy as np

from mengya.text.contamination.folding import Folded, fold, fold_strings
from mengya.text.contamination.ngrams import HashSet, ngram_hashes, run_hashes

COMMON = 5  # different items; an n-gram that is in more is a phrase of exams
TINY = 6  # characters; a shorter question is not looked for
NEAR = 40  # characters of other text that may stand between a question and its options
_BLOCK = 1 << 15  # characters hashed at a time: the arrays stay in the cache
_FoldedItem = tuple[str, tuple[str, ...]]  # question and options
_DIGITS = tuple(range(ord("0"), ord("9") + 1))


@dataclass(frozen=True)
class Item:
    """A question of an exam, and its options where it has any."""

    question: str
    options: tuple[str, ...] = ()


def item_keys(items: Sequence[Item]) -> list[str]:
    """64 bits of each as hexadecimal: equal for items that are equal after folding, options in any order."""
    return [
        blake2b("\0".join([question, *sorted(options)]).encode(), digest_size=8).hexdigest()
        for question, options in _folded(items)
    ]


@dataclass
class ContaminationIndex:
    """Made once from all items, and sent to every process.

    Attributes:
        unchecked: numbers of the items that are not looked for.
    """

    n: int
    unchecked: frozenset[int]
    _grams: HashSet
    _first: np.ndarray  # [grams + 1] where the items of each gram begin in _items
    _items: np.ndarray
    _needed: np.ndarray  # [items] how many of its grams a text must hold
    _short: dict[int, _FoldedItem]  # those whose n-grams alone prove nothing
    _lines: HashSet
    _line_items: list[list[int]]  # of each of _lines

    def find(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """(number of the text, number of the item), sorted, each once."""
        if not texts:
            return []
        folded = fold(texts)
        return sorted({*self._by_line(folded), *self._by_ngrams(folded)})

    def _by_line(self, folded: Folded) -> Iterator[tuple[int, int]]:
        begins, lengths = numbered_lines(folded)
        fit = (lengths >= TINY) & (lengths <= 2 * self.n - 2)
        begins, lengths = begins[fit], lengths[fit]
        places, found = self._lines.find(run_hashes(folded.codes, begins, lengths))
        texts = np.searchsorted(folded.texts, begins[places], side="right") - 1
        for text, line in zip(texts.tolist(), found.tolist(), strict=True):
            for item in self._line_items[line]:
                yield text, item

    def _by_ngrams(self, folded: Folded) -> Iterator[tuple[int, int]]:
        places, grams = self._hits(folded)
        texts = np.searchsorted(folded.texts, places, side="right") - 1
        inside = places + self.n <= folded.texts[texts + 1]  # not over the end of a text
        places, grams, texts = places[inside], grams[inside], texts[inside]
        counts = self._first[grams + 1] - self._first[grams]
        row = np.repeat(np.arange(len(grams)), counts)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        items = self._items[self._first[grams[row]] + nth]
        order = np.lexsort((grams[row], items, texts[row]))
        row, items = row[order], items[order]
        triples = np.stack([texts[row], items, grams[row]], 1)
        if not len(triples):
            return
        new = np.concatenate([[True], (triples[1:] != triples[:-1]).any(1)])
        pairs = triples[:, :2]
        starts = np.flatnonzero(np.concatenate([[True], (pairs[1:] != pairs[:-1]).any(1)]))
        distinct = np.add.reduceat(new.astype(np.int64), starts)
        enough = distinct >= self._needed[items[starts]]
        ends = np.concatenate([starts[1:], [len(row)]])
        for start, end in zip(starts[enough].tolist(), ends[enough].tolist(), strict=True):
            text, item = pairs[start].tolist()
            short = self._short.get(item)
            if short is None or self._stands(short, folded, text, places[row[start:end]]):
                yield text, item

    def _hits(self, folded: Folded) -> tuple[np.ndarray, np.ndarray]:
        """(places in the codes, indices of the grams that begin there)."""
        places, grams = [], []
        for start in range(0, len(folded.codes), _BLOCK):
            codes = folded.codes[start : start + _BLOCK + self.n - 1]
            at, gram = self._grams.find(ngram_hashes(codes, self.n))
            places.append(at + start)
            grams.append(gram)
        empty = np.zeros(0, np.int64)
        return np.concatenate([empty, *places]), np.concatenate([empty, *grams])

    def _stands(self, item: _FoldedItem, folded: Folded, text: int, places: np.ndarray) -> bool:
        """Whether a full short question stands at one of the places, with half of its options near it."""
        question, options = item[0], {option for option in item[1] if len(option) > 1}
        if len(options) < 2:
            return False
        first, last = folded.texts[text : text + 2].tolist()
        reach = sum(map(len, item[1])) + NEAR
        for place in sorted(set(places.tolist())):
            end = place + len(question)
            if folded.string(place, min(end, last)) != question:
                continue
            before = folded.string(max(first, place - reach), place)
            after = folded.string(end, min(last, end + reach))
            found = sum(option in before or option in after for option in options)
            if 2 * found >= len(options):
                return True
        return False


def build_index(items: Sequence[Item], n: int, share: float) -> ContaminationIndex:
    """The index of all items, numbered as they come; equal ones get equal answers."""
    folded = _folded(items)
    asked = _questions_asked(folded)
    questions, options = _own_ngrams(folded, n)
    own = np.bincount(questions.items, minlength=len(items))
    by_options = (own == 0) & (np.bincount(options.items, minlength=len(items)) >= n)
    enough = (own >= n) | by_options
    keys = questions.joined(options.of(by_options))
    sizes = np.bincount(keys.items, minlength=len(items))
    needed = np.ceil(np.where(enough, share, 1.0) * sizes - 1e-9).astype(np.int64)
    lines: dict[str, list[int]] = defaultdict(list)
    for number, (question, _) in enumerate(folded):
        line = question.lstrip("0123456789")
        if TINY <= len(line) <= 2 * n - 2 and asked[question] == 1:
            lines[line].append(number)
    checked = {
        *np.flatnonzero(sizes).tolist(),
        *(each for numbers in lines.values() for each in numbers),
    }
    hashes, first = np.unique(keys.hashes, return_index=True)
    of_lines, line_hashes = list(lines.values()), _line_hashes(list(lines))
    return ContaminationIndex(
        n=n,
        unchecked=frozenset(set(range(len(items))) - checked),
        _grams=HashSet(hashes),
        _first=np.concatenate([first, [len(keys.hashes)]]),
        _items=keys.items,
        _needed=needed,
        _short={
            number: folded[number] for number in np.flatnonzero(~enough & (sizes > 0)).tolist()
        },
        _lines=HashSet(line_hashes),
        _line_items=[of_lines[at] for at in np.argsort(line_hashes).tolist()],
    )


def numbered_lines(folded: Folded) -> tuple[np.ndarray, np.ndarray]:
    """(begin, length) of every line without the digits that it begins with, as in "12、"."""
    begins, ends = folded.lines[:-1].copy(), folded.lines[1:]
    left = np.flatnonzero(begins < ends)
    while len(left):
        left = left[np.isin(folded.codes[begins[left]], _DIGITS)]
        begins[left] += 1
        left = left[begins[left] < ends[left]]
    return begins, ends - begins


class _Ngrams(NamedTuple):
    """Pairs of an n-gram and an item that has it, each once, in the order of the hashes."""

    hashes: np.ndarray
    items: np.ndarray

    @staticmethod
    def of_pairs(hashes: np.ndarray, items: np.ndarray) -> _Ngrams:
        order = np.lexsort((items, hashes))
        hashes, items = hashes[order], items[order]
        new = np.ones(len(hashes), bool)
        new[1:] = (hashes[1:] != hashes[:-1]) | (items[1:] != items[:-1])
        return _Ngrams(hashes[new], items[new])

    def of(self, items: np.ndarray) -> _Ngrams:
        """Those of some items: bool [items]."""
        return _Ngrams(self.hashes[items[self.items]], self.items[items[self.items]])

    def without(self, hashes: np.ndarray) -> _Ngrams:
        left = ~np.isin(self.hashes, hashes)
        return _Ngrams(self.hashes[left], self.items[left])

    def joined(self, other: _Ngrams) -> _Ngrams:
        return _Ngrams.of_pairs(*map(np.concatenate, zip(self, other, strict=True)))


def _folded(items: Sequence[Item]) -> list[_FoldedItem]:
    parts = iter(fold_strings([text for item in items for text in (item.question, *item.options)]))
    return [(next(parts), tuple(islice(parts, len(item.options)))) for item in items]


def _different(folded: Sequence[_FoldedItem]) -> list[int]:
    """The number of the first of equal items, the order of options aside."""
    first: dict[tuple[str, tuple[str, ...]], int] = {}
    for number, (question, options) in enumerate(folded):
        first.setdefault((question, tuple(sorted(options))), number)
    return list(first.values())


def _questions_asked(folded: Sequence[_FoldedItem]) -> Counter[str]:
    """How many different items ask each question."""
    return Counter(folded[number][0] for number in _different(folded))


def _own_ngrams(folded: Sequence[_FoldedItem], n: int) -> tuple[_Ngrams, _Ngrams]:
    """Of the questions and of the options, without those that are in more than COMMON different items."""
    questions = [(number, question) for number, (question, _) in enumerate(folded)]
    options = [(number, text) for number, (_, texts) in enumerate(folded) for text in texts]
    both = _ngrams_of(questions, n), _ngrams_of(options, n)
    different = np.zeros(len(folded), bool)
    different[_different(folded)] = True
    values, counts = np.unique(both[0].joined(both[1]).of(different).hashes, return_counts=True)
    common = values[counts > COMMON]
    return both[0].without(common), both[1].without(common)


def _ngrams_of(parts: Sequence[tuple[int, str]], n: int) -> _Ngrams:
    """Of (item, text) pairs."""
    lengths = np.array([len(text) for _, text in parts], np.int64)
    hashes = ngram_hashes(_codes("".join(text for _, text in parts)), n)
    items = np.repeat(np.array([item for item, _ in parts], np.int64), lengths)
    ends = np.repeat(np.cumsum(lengths), lengths)
    inside = np.arange(len(hashes)) + n <= ends[: len(hashes)]
    return _Ngrams.of_pairs(hashes[inside], items[: len(hashes)][inside])


def _codes(folded: str) -> np.ndarray:
    return np.frombuffer(folded.encode("utf-32-le"), "<u4")


def _line_hashes(lines: Sequence[str]) -> np.ndarray:
    lengths = np.array([len(line) for line in lines], np.int64)
    return run_hashes(_codes("".join(lines)), np.cumsum(lengths) - lengths, lengths)

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

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from mengya.text.contamination.folding import Folded, fold, fold_string
from mengya.text.contamination.ngrams import HashSet, ngram_hashes, run_hashes

COMMON = 5  # different items; an n-gram that is in more is a phrase of exams
TINY = 6  # characters; a shorter question is not looked for
NEAR = 40  # characters of other text that may stand between a question and its options
_BLOCK = 1 << 15  # characters hashed at a time: the arrays stay in the cache
_DIGITS = tuple(range(ord("0"), ord("9") + 1))


@dataclass(frozen=True)
class Item:
    """A question of an exam, and its options where it has any."""

    question: str
    options: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """64 bits as hexadecimal: equal for items that are equal after folding, options in any order."""
        question, options = self.folded
        text = "\0".join([question, *sorted(options)])
        return blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def folded(self) -> tuple[str, tuple[str, ...]]:
        parts = [fold_string(unicodedata.normalize("NFC", p)) for p in (self.question, *self.options)]
        return parts[0], tuple(parts[1:])


@dataclass(frozen=True)
class _Sought:
    """What is looked for of one item: question and options, folded; whether the n-grams prove it."""

    question: str
    options: tuple[str, ...]
    enough: bool


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
    _sought: dict[int, _Sought]
    _lines: HashSet
    _line_items: list[list[int]] = field(default_factory=list)  # of each of _lines

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
            sought = self._sought[item]
            if sought.enough or self._stands(sought, folded, text, places[row[start:end]]):
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

    def _stands(self, sought: _Sought, folded: Folded, text: int, places: np.ndarray) -> bool:
        """Whether a full short question stands at one of the places, with half of its options near it."""
        options = {option for option in sought.options if len(option) > 1}
        if len(options) < 2:
            return False
        first, last = folded.texts[text : text + 2].tolist()
        reach = sum(map(len, sought.options)) + NEAR
        for place in sorted(set(places.tolist())):
            end = place + len(sought.question)
            if folded.string(place, min(end, last)) != sought.question:
                continue
            before = folded.string(max(first, place - reach), place)
            after = folded.string(end, min(last, end + reach))
            found = sum(option in before or option in after for option in options)
            if 2 * found >= len(options):
                return True
        return False


def build_index(items: Sequence[Item], n: int, share: float) -> ContaminationIndex:
    """The index of all items, numbered as they come; equal ones get equal answers."""
    folded = [item.folded for item in items]
    questions = [_distinct(question, n) for question, _ in folded]
    options = [np.unique(np.concatenate([_NONE, *(_distinct(o, n) for o in os)])) for _, os in folded]
    numbers: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
    for number, (question, texts) in enumerate(folded):
        numbers[question, tuple(sorted(texts))].append(number)
    different = [group[0] for group in numbers.values()]
    common = _common(np.unique(np.concatenate([questions[i], options[i]])) for i in different)
    asked = Counter(folded[number][0] for number in different)
    sought: dict[int, _Sought] = {}
    needed = np.zeros(len(items), np.int64)
    grams: list[np.ndarray] = []
    lines: dict[str, list[int]] = defaultdict(list)
    for number, (question, texts) in enumerate(folded):
        own = questions[number][~np.isin(questions[number], common)]
        own_options = options[number][~np.isin(options[number], common)]
        if len(own) >= n:
            key, enough, part = own, True, share
        elif len(own):
            key, enough, part = own, False, 1.0
        elif len(own_options) >= n:
            key, enough, part = own_options, True, share
        else:
            key, enough, part = own, True, 1.0
        if len(key):
            sought[number] = _Sought(question, texts, enough)
            needed[number] = math.ceil(part * len(key) - 1e-9)
        grams.append(key)
        line = question.lstrip("0123456789")
        if TINY <= len(line) <= 2 * n - 2 and asked[question] == 1:
            lines[line].append(number)
    checked = {*sought, *(number for numbers in lines.values() for number in numbers)}
    every, first, owners = _grouped(grams)
    hashed = _line_hashes(list(lines))
    order = np.argsort(hashed)
    of_lines = list(lines.values())
    return ContaminationIndex(
        n=n,
        unchecked=frozenset(set(range(len(items))) - checked),
        _grams=every,
        _first=first,
        _items=owners,
        _needed=needed,
        _sought=sought,
        _lines=HashSet(hashed),
        _line_items=[of_lines[at] for at in order.tolist()],
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


_NONE = np.zeros(0, np.uint64)


def _distinct(folded: str, n: int) -> np.ndarray:
    """The hashes of its n-grams, sorted, each once."""
    return np.unique(ngram_hashes(_codes(folded), n))


def _codes(folded: str) -> np.ndarray:
    return np.frombuffer(folded.encode("utf-32-le"), "<u4")


def _common(grams: Iterable[np.ndarray]) -> np.ndarray:
    """The n-grams that are in more than COMMON items."""
    values, counts = np.unique(np.concatenate([_NONE, *grams]), return_counts=True)
    return values[counts > COMMON]


def _grouped(grams: Sequence[np.ndarray]) -> tuple[HashSet, np.ndarray, np.ndarray]:
    """All grams of the items, where the items of each begin, and those items."""
    every = np.concatenate([_NONE, *grams])
    owners = np.repeat(np.arange(len(grams)), [len(part) for part in grams])
    order = np.argsort(every, kind="stable")
    values, first = np.unique(every[order], return_index=True)
    return HashSet(values), np.concatenate([first, [len(every)]]), owners[order]


def _line_hashes(lines: Sequence[str]) -> np.ndarray:
    lengths = np.array([len(line) for line in lines], np.int64)
    return run_hashes(_codes("".join(lines)), np.cumsum(lengths) - lengths, lengths)

"""Which exam items stand in which texts: n-grams find candidates, what the item is like decides.

Compared are folded characters (folding.py), in windows around the places that match. With n = 13:

    long    a question with 13 n-grams of its own or more (25 characters, 2n - 1): `share` of them are there.
    short   one with fewer: the full question is there.
    tiny    6 to 12 characters: the question is a line of its own (a turn of a conversation begins a line),
            numbers before it left out, and no other item asks the same.
    stem    a question without n-grams of its own ("下列说法正确的是"): `share` of those of its options, if
            they have n.

An n-gram of its own is in at most COMMON different items, and not inside a quotation. In addition:

    - `share` of the numbers of the question are there: the same exercise with other numbers is another one.
    - A stem to be completed ("必须向____提出申请") is a sentence of a law or a textbook. It, and a tiny
      question with options, counts only where half of its options stand near, or (not tiny) where it is a
      line of its own.

Options are compared one by one, so their order does not matter. What no rule covers is `unchecked`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mengya.text.contamination.folding import Folded, codes_of, fold
from mengya.text.contamination.items import (
    FoldedItem,
    Item,
    folded_items,
    own_ngrams,
    questions_asked,
)
from mengya.text.contamination.ngrams import HashSet, ngram_hashes, run_hashes

TINY = 6  # characters; a shorter question is not looked for
NEAR = 40  # characters of other text that may stand between a question and its options
_BLOCK = 1 << 15  # characters hashed at a time: the arrays stay in the cache
_DIGITS = tuple(range(ord("0"), ord("9") + 1))


@dataclass
class ContaminationIndex:
    """Made once from all items, and sent to every process.

    Attributes:
        unchecked: numbers of the items that are not looked for.
    """

    n: int
    share: float
    unchecked: frozenset[int]
    _sought: list[FoldedItem]
    _grams: HashSet
    _first: np.ndarray  # [grams + 1] where the items of each gram begin in _items
    _items: np.ndarray
    _needed: np.ndarray  # [items] how many of its grams a text must hold
    _in_full: np.ndarray  # [items] bool: and the full question
    _lines: HashSet
    _line_items: list[list[int]]  # of each of _lines

    def find(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """(number of the text, number of the item), sorted, each once."""
        if not texts:
            return []
        folded = fold(texts)
        return sorted({*self._by_line(folded), *self._by_ngrams(folded)})

    def _by_line(self, folded: Folded) -> Iterator[tuple[int, int]]:
        """Tiny questions."""
        begins, ends = folded.lines[:-1], folded.lines[1:]
        for begin in (begins, _after_digits(folded)):
            lengths = ends - begin
            fit = (lengths >= TINY) & (lengths < self.n)
            hashes = run_hashes(folded.codes, begin[fit], lengths[fit])
            places, found = self._lines.find(hashes)
            at = begin[fit][places]
            texts = np.searchsorted(folded.texts, at, side="right") - 1
            for text, place, line in zip(texts.tolist(), at.tolist(), found.tolist(), strict=True):
                for number in self._line_items[line]:
                    item = self._sought[number]
                    _, window = _window(item, folded, text, place)
                    if len(item.options) < 2 or _options_near(item, window):
                        yield text, number

    def _by_ngrams(self, folded: Folded) -> Iterator[tuple[int, int]]:
        """The others."""
        texts, items, grams, places = self._matches(folded)
        if not len(texts):
            return
        other = (np.diff(texts) != 0) | (np.diff(items) != 0)
        new = np.concatenate([[True], other | (np.diff(grams) != 0)])
        starts = np.concatenate([[0], np.flatnonzero(other) + 1])
        enough = np.add.reduceat(new, starts, dtype=np.int64) >= self._needed[items[starts]]
        ends = np.concatenate([starts[1:], [len(texts)]])
        for start, end in zip(starts[enough].tolist(), ends[enough].tolist(), strict=True):
            text, number = int(texts[start]), int(items[start])
            if self._stands(number, folded, text, places[start:end]):
                yield text, number

    def _matches(self, folded: Folded) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(text, item, n-gram, place) of everything that matches, sorted in this order."""
        places, grams = self._hits(folded)
        texts = np.searchsorted(folded.texts, places, side="right") - 1
        inside = places + self.n <= folded.texts[texts + 1]  # not over the end of a text
        places, grams, texts = places[inside], grams[inside], texts[inside]
        counts = self._first[grams + 1] - self._first[grams]
        row = np.repeat(np.arange(len(grams)), counts)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        items = self._items[self._first[grams[row]] + nth]
        order = np.lexsort((places[row], grams[row], items, texts[row]))
        row = row[order]
        return texts[row], items[order], grams[row], places[row]

    def _hits(self, folded: Folded) -> tuple[np.ndarray, np.ndarray]:
        """(places in the codes, indices of the n-grams that begin there)."""
        places, grams = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for start in range(0, len(folded.codes), _BLOCK):
            codes = folded.codes[start : start + _BLOCK + self.n - 1]
            at, gram = self._grams.find(ngram_hashes(codes, self.n))
            places.append(at + start)
            grams.append(gram)
        return np.concatenate(places), np.concatenate(grams)

    def _stands(self, number: int, folded: Folded, text: int, places: np.ndarray) -> bool:
        """Whether the item itself stands around one of the places."""
        item, looked_at = self._sought[number], -1
        for place in sorted(set(places.tolist())):
            if place < looked_at:
                continue
            looked_at = place + len(item.question)
            start, window = _window(item, folded, text, place)
            if self._in_full[number] and item.question not in window:
                continue
            if not _numbers_there(item, window, self.share):
                continue
            if item.asks or _options_near(item, window) or _is_line(item, folded, start, window):
                return True
        return False


def build_index(items: Sequence[Item], n: int, share: float) -> ContaminationIndex:
    """The index of all items, numbered as they come; equal ones get equal answers."""
    sought = folded_items(items)
    asked = questions_asked(sought)
    questions, options = own_ngrams(sought, n)
    own = np.bincount(questions.items, minlength=len(items))
    by_options = (own == 0) & (np.bincount(options.items, minlength=len(items)) >= n)
    keys = questions.joined(options.of(by_options))
    sizes = np.bincount(keys.items, minlength=len(items))
    in_full = (own > 0) & (own < n)
    lines: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(sought):
        if TINY <= len(item.question) < n and asked[item.question] == 1:
            lines[item.question].append(number)
    unchecked = {*np.flatnonzero(sizes == 0).tolist()}.difference(*lines.values())
    hashes, first = np.unique(keys.hashes, return_index=True)
    line_hashes = _line_hashes(list(lines))
    of_lines = list(lines.values())
    return ContaminationIndex(
        n=n,
        share=share,
        unchecked=frozenset(unchecked),
        _sought=sought,
        _grams=HashSet(hashes),
        _first=np.concatenate([first, [len(keys.hashes)]]),
        _items=keys.items,
        _needed=np.ceil(np.where(in_full, 1.0, share) * sizes - 1e-9).astype(np.int64),
        _in_full=in_full,
        _lines=HashSet(line_hashes),
        _line_items=[of_lines[at] for at in np.argsort(line_hashes).tolist()],
    )


def _window(item: FoldedItem, folded: Folded, text: int, place: int) -> tuple[int, str]:
    """(begin, characters) of what can belong to an item of which a part stands at `place`."""
    first, last = folded.texts[text : text + 2].tolist()
    reach = len(item.question) + sum(map(len, item.options)) + NEAR
    start = max(first, place - reach)
    return start, folded.string(start, min(last, place + reach))


def _numbers_there(item: FoldedItem, window: str, share: float) -> bool:
    numbers = set(re.findall(r"\d+", item.question))
    there = numbers & set(re.findall(r"\d+", window))
    return len(there) >= share * len(numbers)


def _options_near(item: FoldedItem, window: str) -> bool:
    """Whether half of the options are in the window, besides the question; "A" and "on" say nothing."""
    options = {o for o in item.options if len(o) > (3 if o.isascii() else 1)}
    rest = window.replace(item.question, "\n", 1)
    return len(options) > 1 and 2 * sum(option in rest for option in options) >= len(options)


def _is_line(item: FoldedItem, folded: Folded, start: int, window: str) -> bool:
    """Whether the question is a line of its own somewhere in the window, which begins at `start`."""
    for found in re.finditer(re.escape(item.question), window):
        edges = np.array(found.span()) + start
        at = np.minimum(np.searchsorted(folded.lines, edges), len(folded.lines) - 1)
        if (folded.lines[at] == edges).all():
            return True
    return False


def _after_digits(folded: Folded) -> np.ndarray:
    """Where every line begins behind the digits that it begins with, as in "12、"."""
    begins, ends = folded.lines[:-1].copy(), folded.lines[1:]
    left = np.flatnonzero(begins < ends)
    while len(left):
        left = left[np.isin(folded.codes[begins[left]], _DIGITS)]
        begins[left] += 1
        left = left[begins[left] < ends[left]]
    return begins


def _line_hashes(lines: Sequence[str]) -> np.ndarray:
    lengths = np.array([len(line) for line in lines], np.int64)
    return run_hashes(codes_of("".join(lines)), np.cumsum(lengths) - lengths, lengths)

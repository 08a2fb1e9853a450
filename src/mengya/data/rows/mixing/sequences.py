"""Endless sequences of sources: global row index -> (source, how many rows of it come before).

Pure functions of the index and a seed, made of blocks: a block holds each source in its share, shuffled, so
any place is found at once. Knows only how many rows, not what they hold.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from mengya.data.rows.order import row_permutation
from mengya.errors import UserError

_MIN_BLOCK, _MAX_BLOCK = 1_000, 1_000_000
_RAREST = 10  # rows of the rarest source in a block
_KEPT = 2  # blocks in memory: of the loader, and of the log a few steps behind it


@dataclass(frozen=True)
class Segment:
    """From global row `start` to the next segment: in every sum(counts) rows exactly `counts` of the sources.

    So it may be of any length, and rows do not depend on where it ends.
    """

    start: int
    counts: tuple[int, ...]

    @cached_property
    def rows(self) -> int:
        return sum(self.counts)

    def most(self, rows: int) -> list[int]:
        """No more rows of each source than these are in the first `rows`, whatever the seed."""
        cycles, local = divmod(max(0, rows - 1), self.rows)
        block = ((local + 1) * _blocks(self) - 1) // self.rows
        end = (block + 1) * self.rows // _blocks(self)
        return (cycles * np.array(self.counts) + _part(self, end)).tolist()


class Block(NamedTuple):
    """Rows [start, end): the source of each, and how many rows of that source precede it in the run.

    The arrays are longer where the next segment begins before the block is done.
    """

    start: int
    end: int
    source_of: np.ndarray
    rank: np.ndarray


class EvenBlocks:
    """The same shares without end: every block has the same `counts`."""

    def __init__(self, counts: np.ndarray, seed: int) -> None:
        self.counts, self._seed = counts, seed
        self._size = int(counts.sum())
        self._block = lru_cache(_KEPT)(self._make)
        self._last: Block | None = None

    def place(self, index: int) -> tuple[int, int]:
        """(source, how many of its rows come before) of global row `index`."""
        block = self._last  # one read: another thread may replace it
        if block is None or not block.start <= index < block.end:
            block = self._last = self._block(index // self._size)
        at = index - block.start
        return int(block.source_of[at]), int(block.rank[at])

    def before(self, index: int) -> np.ndarray:
        """[sources] int64, rows of every source before global row `index`."""
        number, inside = divmod(index, self._size)
        if not inside:
            return number * self.counts
        block = self._block(number)
        counted = np.bincount(block.source_of[:inside], minlength=len(self.counts))
        return number * self.counts + counted

    def _make(self, number: int) -> Block:
        start = number * self._size
        before = number * self.counts
        return _shuffled(start, before, self.counts, self._seed, number)


class SegmentBlocks:
    """One segment after the other, the rows of each source spread evenly over it."""

    def __init__(self, segments: Sequence[Segment], seed: int) -> None:
        self._segments, self._seed = segments, seed
        self._starts = [segment.start for segment in segments]
        self._block = lru_cache(_KEPT)(self._make)
        self._last: Block | None = None
        self._before = [np.zeros(len(segments[0].counts), np.int64)]  # the rows before each segment
        for number, start in enumerate(self._starts[1:]):
            self._before.append(self._until(number, start))

    def place(self, index: int) -> tuple[int, int]:
        """(source, how many of its rows come before) of global row `index`."""
        block = self._last  # one read: another thread may replace it
        if block is None or not block.start <= index < block.end:
            number = bisect_right(self._starts, index) - 1
            block = self._last = self._block(*self._find(number, index))
        at = index - block.start
        return int(block.source_of[at]), int(block.rank[at])

    def before(self, index: int) -> np.ndarray:
        """[sources] int64, rows of every source before global row `index`."""
        return self._until(bisect_right(self._starts, index) - 1, index)

    def _until(self, number: int, index: int) -> np.ndarray:
        """Rows of every source before `index`, which segment `number` or the end of it holds."""
        where = self._find(number, index)
        start, _, before, _ = self._bounds(*where)
        inside = index - start
        if not inside:
            return before
        block = self._block(*where)
        return before + np.bincount(block.source_of[:inside], minlength=len(before))

    def _find(self, number: int, index: int) -> tuple[int, int, int]:
        """(segment, how often its counts came before, block) of a row in segment `number`."""
        segment = self._segments[number]
        cycle, local = divmod(index - segment.start, segment.rows)
        blocks = _blocks(segment)
        return number, cycle, ((local + 1) * blocks - 1) // segment.rows

    def _bounds(
        self, number: int, cycle: int, block: int
    ) -> tuple[int, int, np.ndarray, np.ndarray]:
        """Start and end of a block, and rows of every source before and after it."""
        segment = self._segments[number]
        begin, end = (b * segment.rows // _blocks(segment) for b in (block, block + 1))
        start = segment.start + cycle * segment.rows
        before = self._before[number] + cycle * np.array(segment.counts)
        return (
            start + begin,
            start + end,
            before + _part(segment, begin),
            before + _part(segment, end),
        )

    def _make(self, number: int, cycle: int, block: int) -> Block:
        start, _, before, after = self._bounds(number, cycle, block)
        key = number << 40 | cycle * _blocks(self._segments[number]) + block
        made = _shuffled(start, before, after - before, self._seed, key)
        next_start = self._starts[number + 1] if number + 1 < len(self._starts) else made.end
        return made._replace(end=min(made.end, next_start))


def even_counts(shares: Sequence[float]) -> tuple[int, ...]:
    """A million rows in these shares, by largest remainder; a share above 0 gives at least one."""
    quotas = [share * _MAX_BLOCK for share in shares]
    counts = [max(math.floor(quota), int(quota > 0)) for quota in quotas]
    order = sorted(range(len(counts)), key=lambda i: (counts[i] - quotas[i], i))
    for i in order[: max(0, _MAX_BLOCK - sum(counts))]:
        counts[i] += 1
    return tuple(counts)


def block_counts(weights: Sequence[float | None]) -> np.ndarray | None:
    """Rows of every source in one block, by largest remainder; None when no weights are given.

    The block is long enough to hold ten rows of the rarest source, so a share is never off by more than 5 %.

    Raises:
        UserError: weights for some sources only, or not positive.
    """
    given = [weight for weight in weights if weight is not None]
    if not given:
        return None
    if len(given) < len(weights) or not all(w > 0 and math.isfinite(w) for w in given):
        raise UserError(f"weights {[*weights]}: give a positive weight to every source, or to none")
    share = np.array(given) / sum(given)
    block = min(_MAX_BLOCK, max(_MIN_BLOCK, math.ceil(_RAREST / float(share.min()))))
    counts = np.floor(share * block).astype(np.int64)
    rest = np.argsort(counts - share * block, kind="stable")[: block - int(counts.sum())]
    counts[rest] += 1
    return np.maximum(counts, 1)


def _blocks(segment: Segment) -> int:
    """Blocks of a segment: of equal size within a row, each with ten rows of the rarest source."""
    rarest = min(count for count in segment.counts if count)
    size = min(_MAX_BLOCK, max(_MIN_BLOCK, _RAREST * segment.rows // rarest))
    return max(1, segment.rows // max(size, len(segment.counts) ** 2))


def _part(segment: Segment, rows: int) -> np.ndarray:
    """[sources] int64, rows of every source in the first `rows` of a segment: its share, rounded.

    The largest source takes what rounding leaves. It has at least 1/sources of a block, which is as long as
    sources^2, so it never goes back.
    """
    total = segment.rows
    part = [(2 * count * rows + total) // (2 * total) for count in segment.counts]
    largest = segment.counts.index(max(segment.counts))
    part[largest] += rows - sum(part)
    return np.array(part)


def _shuffled(start: int, before: np.ndarray, counts: np.ndarray, seed: int, key: int) -> Block:
    ordered = np.repeat(np.arange(len(counts)), counts)
    source_of = ordered[row_permutation(seed, key, len(ordered))]
    rank = np.empty(len(source_of), np.int64)
    for source, count in enumerate(counts):
        rank[source_of == source] = before[source] + np.arange(count)
    return Block(start, start + len(source_of), source_of, rank)

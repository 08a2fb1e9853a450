"""Which piece of which document goes into which row: the plan, made from lengths alone.

A document of n tokens holds n-1 (input, label) pairs, a row `sequence_length` of them. A longer document is
cut into pieces; piece k covers pairs [k*S, (k+1)*S), so it starts at the token that was the last label of
piece k-1 and every pair is placed exactly once. Pieces are packed best-fit-decreasing. Knows no tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mengya.data.rows.order import row_permutation
from mengya.runtime.integers import ceil_div


@dataclass(frozen=True, slots=True)
class Packing:
    """Rows in CSR form: row r holds the pieces row_starts[r] to row_starts[r+1], in that order.

    Attributes:
        row_starts: [rows + 1] int64.
        document: [pieces] int64, the document of every piece.
        start: [pieces] int64, the first pair of the piece within its document.
        length: [pieces] int64, pairs in the piece (it spans length + 1 tokens).
    """

    row_starts: np.ndarray
    document: np.ndarray
    start: np.ndarray
    length: np.ndarray
    sequence_length: int

    def __len__(self) -> int:
        return len(self.row_starts) - 1

    @property
    def max_pieces(self) -> int:
        """The largest number of pieces in a row."""
        return int(np.diff(self.row_starts).max(initial=0))

    @property
    def fill(self) -> float:
        """The part of all positions that holds a pair, 0 to 1."""
        return float(self.length.sum()) / max(1, len(self) * self.sequence_length)

    @property
    def row_tokens(self) -> np.ndarray:
        """[rows] int64, pairs in every row."""
        return np.add.reduceat(self.length, self.row_starts[:-1])

    @property
    def visible(self) -> float:
        """Positions of its own document that a pair sees on average, itself included."""
        length = self.length.astype(np.float64)
        return float((length * (length + 1)).sum() / 2 / max(1.0, length.sum()))


def pack(lengths: np.ndarray, sequence_length: int, *, group: int = 1, seed: int = 0) -> Packing:
    """Plan the rows of documents with `lengths` [documents] tokens.

    Args:
        sequence_length: pairs per row.
        group: documents that stay together, uncut and in order, in one row (2 for preference pairs). A
            group that does not fit is left out.
        seed: shuffles documents of equal length, so that a row does not hold neighbours of the corpus.

    Documents of fewer than two tokens hold no pair and are left out; with groups, the group is.
    """
    if sequence_length < group:
        raise ValueError(f"sequence_length {sequence_length} cannot hold {group} documents")
    if len(lengths) % group:
        raise ValueError(f"{len(lengths)} documents are not groups of {group}")
    pairs = np.maximum(np.asarray(lengths, np.int64) - 1, 0)
    if group == 1:
        return _pack_pieces(pairs, sequence_length, seed)
    return _pack_groups(pairs.reshape(-1, group), sequence_length, seed)


def _pack_pieces(pairs: np.ndarray, size: int, seed: int) -> Packing:
    pieces = -(-pairs // size)
    document = np.repeat(np.arange(len(pairs)), pieces)
    first = np.cumsum(pieces) - pieces
    start = (np.arange(len(document)) - first[document]) * size
    length = np.minimum(pairs[document] - start, size)
    row, rows = _best_fit_decreasing(length, size, seed)
    order = np.argsort(row, kind="stable")
    return Packing(_row_starts(row, rows), document[order], start[order], length[order], size)


def _pack_groups(pairs: np.ndarray, size: int, seed: int) -> Packing:
    group = pairs.shape[1]
    kept = np.flatnonzero((pairs > 0).all(1) & (pairs.sum(1) <= size))
    row, rows = _best_fit_decreasing(pairs[kept].sum(1), size, seed)
    order = np.argsort(row, kind="stable")
    document = (kept[order, None] * group + np.arange(group)).ravel()
    return Packing(
        _row_starts(row, rows) * group,
        document,
        np.zeros(len(document), np.int64),
        pairs[kept[order]].ravel(),
        size,
    )


def _row_starts(row: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(row, minlength=rows))])


def _best_fit_decreasing(length: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, int]:
    """Give every item of `length` (1..size) a row: (row of each item, number of rows).

    Best-fit-decreasing, for all items of equal length at once: rows are kept by the room left in them, an
    item goes to the fullest row that still takes it, and a new row is opened only when none does. The steps
    depend on the number of distinct lengths, not on the number of items.

    A row is closed at eight times the average number of items (16 at least): rows made of many tiny documents
    would widen the boundaries of every batch, whose shape is fixed by the fullest row.
    """
    average = len(length) / max(1, ceil_div(int(length.sum()), size))
    rows = _OpenRows(size, crowded=max(16, math.ceil(8 * average)), most=len(length))
    shuffled = row_permutation(seed, 0, len(length))
    items = shuffled[np.argsort(-length[shuffled], kind="stable")]
    counts = np.bincount(length, minlength=size + 1)
    row_of = np.empty(len(length), np.int64)
    done = 0
    for item_length in np.flatnonzero(counts)[::-1].tolist():
        end = done + int(counts[item_length])
        for room in rows.rooms_from(item_length):
            if done == end:
                break
            done += rows.fill(row_of, items[done:end], room, item_length)
        while done < end:
            rows.open(ceil_div(end - done, size // item_length))
            done += rows.fill(row_of, items[done:end], size, item_length)
    return row_of, rows.opened


class _OpenRows:
    """Rows that still take items, kept by the room left in them."""

    def __init__(self, size: int, crowded: int, most: int) -> None:
        self.size, self.crowded, self.opened = size, crowded, 0
        self._by_room: list[list[np.ndarray]] = [[] for _ in range(size + 1)]
        self._rows = np.zeros(size + 1, np.int64)  # how many rows have this room
        self._items = np.zeros(most, np.int32)  # how many items a row has

    def rooms_from(self, smallest: int) -> list[int]:
        return (np.flatnonzero(self._rows[smallest:]) + smallest).tolist()

    def open(self, number: int) -> None:
        self._put(np.arange(self.opened, self.opened + number), self.size)
        self.opened += number

    def fill(self, row_of: np.ndarray, items: np.ndarray, room: int, item_length: int) -> int:
        """Put as many `items` of one length as go into the rows with `room`; say how many that were."""
        per_row = min(room // item_length, self.crowded)
        chunks = self._by_room[room]
        here = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
        targets = here[: ceil_div(len(items), per_row)]
        self._by_room[room] = [here[len(targets) :]] if len(targets) < len(here) else []
        self._rows[room] -= len(targets)
        placed = min(len(items), len(targets) * per_row)
        full, rest = divmod(placed, per_row)
        row_of[items[:placed]] = np.repeat(targets, per_row)[:placed]
        for rows, taken in ((targets[:full], per_row), (targets[full:], rest)):
            self._items[rows] += taken
            self._put(rows[self._items[rows] < self.crowded], room - taken * item_length)
        return placed

    def _put(self, rows: np.ndarray, room: int) -> None:
        if len(rows):
            self._by_room[room].append(rows)
            self._rows[room] += len(rows)

"""A mixture of packed sources: global row index -> row, a pure function without state.

Without weights the sources are one pool, all of it permuted every epoch: each row comes once an epoch. With
weights the sequence is made of blocks; every block holds each source in its share, shuffled within the block,
and each source runs through its own epochs. Knows nothing of torch, batches or ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mengya.data.rows.datasets import PackedRow, PackedRows
from mengya.data.rows.order import row_permutation
from mengya.errors import UserError

_MIN_BLOCK, _MAX_BLOCK = 1_000, 1_000_000


class Mixture:
    """Several `PackedRows` as one endless sequence of rows.

    `len()` is the number of stored rows of all sources. Weights are relative shares of *rows* (hence of
    tokens); give one to every source or to none.

    Raises:
        UserError: weights for some sources only, not positive, or sources of different sequence_length.
    """

    def __init__(self, sources: Sequence[tuple[PackedRows, float | None]], seed: int = 0) -> None:
        if not sources:
            raise UserError("a mixture needs at least one source; name a shard folder")
        self.sources = [rows for rows, _ in sources]
        self.seed = seed
        self.sequence_length = self.sources[0].sequence_length
        if any(rows.sequence_length != self.sequence_length for rows in self.sources):
            raise UserError("the sources of a mixture must share one sequence_length")
        self.max_documents = max(rows.max_documents for rows in self.sources)
        self._first = np.concatenate([[0], np.cumsum([len(rows) for rows in self.sources])])
        self._counts = _block_counts([weight for _, weight in sources])
        self._cached: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def shares(self) -> np.ndarray:
        """The part of a long run's rows that each source gives; they sum to one."""
        rows = np.diff(self._first) if self._counts is None else self._counts
        return rows / rows.sum()

    @property
    def fill(self) -> float:
        """The part of all positions that holds a pair, 0 to 1."""
        return float(self.shares @ [rows.packing.fill for rows in self.sources])

    @property
    def visible(self) -> float:
        """Positions of its own document that a pair sees on average, itself included."""
        pairs = self.shares * [rows.packing.fill for rows in self.sources]
        return float(pairs @ [rows.packing.visible for rows in self.sources] / pairs.sum())

    @property
    def labelled(self) -> float:
        """The part of the tokens that a loss is taken on, 0 to 1; reads the masks of the shards."""
        return float(self.shares @ [rows.shards.labelled_share for rows in self.sources])

    def locate(self, index: int) -> tuple[int, int]:
        """(source, stored row) of global row `index`."""
        cached = self._cached  # one read: another thread may replace it
        if self._counts is None:
            epoch, position = divmod(index, len(self))
            if cached is None or cached[0] != epoch:
                order = row_permutation(self.seed, epoch, len(self))
                cached = self._cached = (epoch, order, order)
            return self._pooled(int(cached[1][position]))
        block, position = divmod(index, int(self._counts.sum()))
        if cached is None or cached[0] != block:
            cached = self._cached = (block, *self._pattern(block))
        _, source_of, rank = cached
        source = int(source_of[position])
        rows = self.sources[source]
        epoch, local = divmod(block * int(self._counts[source]) + int(rank[position]), len(rows))
        return source, rows.order(epoch, local)

    def global_row(self, index: int) -> PackedRow:
        """Row `index` of the endless sequence."""
        source, stored = self.locate(index)
        return self.sources[source].stored_row(stored)

    def stored_row(self, index: int) -> PackedRow:
        """Stored row `index`, the sources one after the other: for passes that see every row once."""
        source, stored = self._pooled(index)
        return self.sources[source].stored_row(stored)

    def _pooled(self, index: int) -> tuple[int, int]:
        source = int(np.searchsorted(self._first, index, side="right")) - 1
        return source, index - int(self._first[source])

    def _pattern(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """For every position of a block: its source, and how many rows of that source precede it there."""
        assert self._counts is not None
        ordered = np.repeat(np.arange(len(self._counts)), self._counts)
        source_of = ordered[row_permutation(self.seed, block, len(ordered))]
        rank = np.empty(len(source_of), np.int64)
        for source, count in enumerate(self._counts):
            rank[source_of == source] = np.arange(count)
        return source_of, rank


def _block_counts(weights: list[float | None]) -> np.ndarray | None:
    """Rows of every source in one block, by largest remainder; None when no weights are given.

    The block is long enough to hold ten rows of the rarest source, so a share is never off by more than 5 %.
    """
    given = [weight for weight in weights if weight is not None]
    if not given:
        return None
    if len(given) < len(weights) or not all(w > 0 and math.isfinite(w) for w in given):
        raise UserError(f"weights {weights}: give a positive weight to every source, or to none")
    share = np.array(given) / sum(given)
    block = min(_MAX_BLOCK, max(_MIN_BLOCK, math.ceil(10 / float(share.min()))))
    counts = np.floor(share * block).astype(np.int64)
    rest = np.argsort(counts - share * block, kind="stable")[: block - int(counts.sum())]
    counts[rest] += 1
    return np.maximum(counts, 1)

"""A mixture of packed sources: global row index -> row, a pure function without state.

Without weights the sources are one pool, all of it permuted every epoch: each row comes once an epoch. With
weights the sequence is made of blocks; every block holds each source in its share, shuffled within the block,
and each source runs through its own epochs. Segments are blocks whose shares change during the run
(mixing/plan.py). Knows nothing of torch, batches or ranks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np

from mengya.data.rows.datasets import KEPT_EPOCHS, PackedRow, PackedRows
from mengya.data.rows.mixing.seen import SeenTokens
from mengya.data.rows.mixing.sequences import EvenBlocks, Segment, SegmentBlocks, block_counts
from mengya.data.rows.order import row_permutation
from mengya.errors import UserError


class Mixture:
    """Several `PackedRows` as one endless sequence of rows.

    `len()` is the number of stored rows of all sources. Weights are relative shares of *rows* (hence of
    tokens); give one to every source or to none.

    Args:
        segments: other shares in other parts of the run; then they decide, not the weights.
        rows: of the run, which the mean over its segments is taken of.

    Raises:
        UserError: weights for some sources only, not positive, or sources of different sequence_length.
    """

    def __init__(
        self,
        sources: Sequence[tuple[PackedRows, float | None]],
        seed: int = 0,
        segments: Sequence[Segment] = (),
        rows: int = 0,
    ) -> None:
        if not sources:
            raise UserError("a mixture needs at least one source; name a shard folder")
        self.sources = [rows for rows, _ in sources]
        self.seed = seed
        self.sequence_length = self.sources[0].sequence_length
        if any(rows.sequence_length != self.sequence_length for rows in self.sources):
            raise UserError("the sources of a mixture must share one sequence_length")
        self.max_documents = max(rows.max_documents for rows in self.sources)
        self._first = [0, *accumulate(len(rows) for rows in self.sources)]
        counts = block_counts([weight for _, weight in sources])
        self._sequence: EvenBlocks | SegmentBlocks | None = None  # None: one pool
        if segments:
            self._sequence = SegmentBlocks(segments, seed)
            counts = self._sequence.before(rows or segments[-1].start + segments[-1].rows)
        elif counts is not None:
            self._sequence = EvenBlocks(counts, seed)
        self._mean_rows = np.diff(self._first) if counts is None else counts
        self._pool = lru_cache(KEPT_EPOCHS)(self._permutation)
        self._last: tuple[int, np.ndarray] | None = (
            None  # epoch of the pool last asked for, its order
        )

    def __len__(self) -> int:
        return self._first[-1]

    @property
    def shares(self) -> np.ndarray:
        """The part of a run's rows that each source gives; they sum to one."""
        return self._mean_rows / self._mean_rows.sum()

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
        if self._sequence is not None:
            source, rank = self._sequence.place(index)
            rows = self.sources[source]
            return source, rows.order(*divmod(rank, len(rows)))
        epoch, position = divmod(index, len(self))
        last = self._last  # one read: another thread may replace it
        if last is None or last[0] != epoch:
            last = self._last = (epoch, self._pool(epoch))
        return self._pooled(int(last[1][position]))

    def rows_before(self, index: int) -> np.ndarray:
        """[sources] float64, rows of every source before global row `index`; of a pool the mean."""
        if self._sequence is not None:
            return self._sequence.before(index).astype(np.float64)
        return index * self.shares

    @cached_property
    def tokens(self) -> np.ndarray:
        """[sources] int64, tokens of every source: what one epoch of it has."""
        return np.array([rows.packing.length.sum() for rows in self.sources])

    def tokens_before(self, index: int) -> np.ndarray:
        """[sources] int64, tokens (padding not counted) of every source before global row `index`."""
        if self._sequence is None:
            return self._seen_pool(index)
        rows = self._sequence.before(index)
        return np.array([seen(int(n))[0] for seen, n in zip(self._seen, rows, strict=True)])

    def global_row(self, index: int) -> PackedRow:
        """Row `index` of the endless sequence."""
        source, stored = self.locate(index)
        return self.sources[source].stored_row(stored)

    def stored_row(self, index: int) -> PackedRow:
        """Stored row `index`, the sources one after the other: for passes that see every row once."""
        source, stored = self._pooled(index)
        return self.sources[source].stored_row(stored)

    def _pooled(self, index: int) -> tuple[int, int]:
        source = bisect_right(self._first, index) - 1
        return source, index - self._first[source]

    def _permutation(self, epoch: int) -> np.ndarray:
        return row_permutation(self.seed, epoch, len(self))

    @cached_property
    def _seen_pool(self) -> SeenTokens:
        tokens = np.concatenate([rows.packing.row_tokens for rows in self.sources])
        return SeenTokens(self._pool, tokens, self._first)

    @cached_property
    def _seen(self) -> list[SeenTokens]:
        return [
            SeenTokens(rows.permutation, rows.packing.row_tokens, [0, len(rows)])
            for rows in self.sources
        ]

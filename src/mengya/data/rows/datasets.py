"""Packed rows: shards and a packing plan become the arrays of row i of epoch e.

Takes `TokenShards`, gives `PackedRow`s of numpy arrays. The plan is made once from the lengths; an epoch only
permutes the rows, so any row can be read at once and nothing has to be remembered. Knows nothing of torch or
ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from mengya.batch import IGNORE_INDEX
from mengya.data.rows.fitting import fit_rows
from mengya.data.rows.mixing.config import Order
from mengya.data.rows.mixing.row_order import check_order, first_pass
from mengya.data.rows.order import row_permutation
from mengya.data.rows.packing import Packing, pack
from mengya.data.shards import TokenShards
from mengya.errors import UserError

KEPT_EPOCHS = 2  # orders in memory: of the loader, and of the log a few steps behind it


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One packed row of S positions.

    Attributes:
        input_ids, labels, position_ids, document_ids: [S] int64, as in `mengya.batch.Batch`.
        ends: [documents] int32, where every document of the row ends; padding, if any, lies behind the last.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray
    document_ids: np.ndarray
    ends: np.ndarray


class RowSource(Protocol):
    """What a loader reads: an endless sequence of rows by global index, and each stored row by number."""

    sequence_length: int
    max_documents: int

    def __len__(self) -> int: ...

    def global_row(self, index: int) -> PackedRow: ...

    def stored_row(self, index: int) -> PackedRow: ...


class PackedRows:
    """The rows of one shard folder.

    Args:
        first_order: of the rows in epoch 0; later epochs are shuffled.

    Attributes:
        max_documents: the most runs of documents and padding in any row, so that batch shapes are static.
        packing: the plan.
        fitting: how much of the documents is used.

    Raises:
        UserError: no row holds anything, or the shards have nothing to order by.
    """

    def __init__(
        self,
        shards: TokenShards,
        sequence_length: int,
        seed: int = 0,
        first_order: Order = "shuffled",
    ) -> None:
        self.shards, self.sequence_length, self.seed = shards, sequence_length, seed
        check_order(shards, first_order)
        group = 2 if shards.kind == "preference" else 1
        self.fitting = fit_rows(shards, sequence_length)
        self.packing: Packing = pack(self.fitting.lengths, sequence_length, group=group, seed=seed)
        self.max_documents = self.packing.max_pieces + 1  # one more for the padding
        self.first_order: Order = first_order
        self.permutation = lru_cache(KEPT_EPOCHS)(self._permutation)
        self._order: tuple[int, np.ndarray] | None = None  # epoch last asked for, its permutation
        if len(self.packing) == 0:
            if left_out := self.fitting.describe(shards.kind, sequence_length):
                remedy = self.fitting.remedy
                raise UserError(f"nothing to train on in {shards.directory}: {left_out}; {remedy}")
            raise UserError(
                f"{shards.directory} holds no document of two tokens or more: nothing to train on"
            )

    def __len__(self) -> int:
        return len(self.packing)

    def row(self, epoch: int, index: int) -> PackedRow:
        """Row `index` of epoch `epoch`, a pure function of both and the seed."""
        return self.stored_row(self.order(epoch, index))

    def order(self, epoch: int, index: int) -> int:
        """Which stored row is row `index` of epoch `epoch`."""
        order = self._order  # one read: another thread may replace it
        if order is None or order[0] != epoch:
            order = self._order = (epoch, self.permutation(epoch))
        return int(order[1][index])

    def _permutation(self, epoch: int) -> np.ndarray:
        shuffled = row_permutation(self.seed, epoch, len(self))
        if epoch or self.first_order == "shuffled":
            return shuffled
        return first_pass(
            self.shards, self.fitting.lengths, self.packing, self.first_order, shuffled
        )

    def global_row(self, index: int) -> PackedRow:
        """Row `index` of the endless sequence of epochs."""
        return self.row(*divmod(index, len(self)))

    def stored_row(self, index: int) -> PackedRow:
        """Row `index` of the packing plan, in no shuffled order.

        Raises:
            UserError: a token id is outside the vocabulary of the shards; names the file and position.
        """
        plan, size = self.packing, self.sequence_length
        input_ids = np.zeros(size, np.int64)
        labels = np.full(size, IGNORE_INDEX, np.int64)
        position_ids = np.zeros(size, np.int64)
        document_ids = np.full(size, -1, np.int64)
        first, last = int(plan.row_starts[index]), int(plan.row_starts[index + 1])
        ends = np.cumsum(plan.length[first:last], dtype=np.int32)
        begin = 0
        for number, piece in enumerate(range(first, last)):
            document, start, length = (
                int(a[piece]) for a in (plan.document, plan.start, plan.length)
            )
            tokens = self.shards.tokens(document, start, start + length + 1)
            end = begin + length
            input_ids[begin:end] = tokens[:-1]
            if self.shards.kind == "text":
                labels[begin:end] = tokens[1:]
            else:
                mask = self.shards.loss_mask(document, start + 1, start + length + 1)
                labels[begin:end] = np.where(mask, tokens[1:].astype(np.int64), IGNORE_INDEX)
            position_ids[begin:end] = np.arange(length)
            document_ids[begin:end] = number
            begin = end
        # Two passes over a row cost microseconds; an id outside the vocabulary ends in the device's assert.
        if max(input_ids.max(), labels.max()) >= self.shards.vocab_size:
            self._name_bad_id(first, last)
        return PackedRow(input_ids, labels, position_ids, document_ids, ends)

    def _name_bad_id(self, first: int, last: int) -> None:
        plan = self.packing
        for document, start, length in zip(
            *(a[first:last].tolist() for a in (plan.document, plan.start, plan.length)), strict=True
        ):
            self.shards.check_ids(document, start, start + length + 1)

    def documents(self, index: int) -> list[int]:
        """The documents, complete or in part, of stored row `index`."""
        first, last = self.packing.row_starts[index : index + 2].tolist()
        return self.packing.document[first:last].tolist()


def padding_row(sequence_length: int) -> PackedRow:
    """A row that holds no document: every label ignored."""
    zeros = np.zeros(sequence_length, np.int64)
    ignored = np.full(sequence_length, IGNORE_INDEX, np.int64)
    return PackedRow(
        zeros, ignored, zeros, np.full(sequence_length, -1, np.int64), np.zeros(0, np.int32)
    )

"""Rows -> micro-batches of one rank, made ahead in a background thread.

Takes a `RowSource` (PackedRows or Mixture), gives lists of `Batch`. Step s takes the global rows that
`BatchSize` says and rank r the r-th of `world_size` equal contiguous parts of them, so the rows of a step are
the same for every number of ranks, and training resumes at any step from one integer.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from mengya.batch import Batch
from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.datasets import PackedRow, RowSource, padding_row
from mengya.data.rows.order import row_permutation
from mengya.errors import UserError

T = TypeVar("T")
PREFETCH_STEPS = 4


def collate(rows: Sequence[PackedRow], max_documents: int) -> Batch:
    """Stack B rows into a `Batch`; shapes of its tensors depend on B, S and max_documents alone."""
    size = len(rows[0].input_ids)
    bounds = [np.zeros(1, np.int64)]
    for number, row in enumerate(rows):
        bounds.append(number * size + row.ends.astype(np.int64))
        if len(row.ends) == 0 or row.ends[-1] < size:
            bounds.append(np.array([(number + 1) * size]))  # the run of padding
    boundaries = np.concatenate(bounds)
    cu_seqlens = np.full(len(rows) * max_documents + 1, len(rows) * size, np.int32)
    cu_seqlens[: len(boundaries)] = boundaries
    return Batch(
        input_ids=torch.from_numpy(np.stack([row.input_ids for row in rows])),
        labels=torch.from_numpy(np.stack([row.labels for row in rows])),
        position_ids=torch.from_numpy(np.stack([row.position_ids for row in rows])),
        document_ids=torch.from_numpy(np.stack([row.document_ids for row in rows])),
        cu_seqlens=torch.from_numpy(cu_seqlens),
        runs=len(boundaries) - 1,
    )


def batches(
    rows: RowSource,
    *,
    start_step: int,
    batch_size: BatchSize,
    micro_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[list[Batch]]:
    """Yield, without end, the micro-batches of this rank for one step after another.

    Args:
        start_step: the first step; those before it are done.
        batch_size: rows of each step over all ranks.
        micro_batch_size: rows per forward pass of one rank.

    Raises:
        UserError: when a step's rows are not a multiple of micro_batch_size * world_size.
    """
    smallest = batch_size.at(0)  # the later ones are multiples of it
    if smallest <= 0 or micro_batch_size <= 0 or smallest % (micro_batch_size * world_size):
        name = "global_batch_size" if batch_size.ramp is None else "batch_ramp.start"
        raise UserError(
            f"{name} {smallest} must be a multiple of micro_batch_size {micro_batch_size} "
            f"times the number of processes {world_size}"
        )

    def steps() -> Iterator[list[Batch]]:
        for step in itertools.count(start_step):
            share = batch_size.at(step) // world_size
            first = batch_size.first_row(step) + rank * share
            yield [
                _pinned(
                    collate(
                        [rows.global_row(i) for i in range(at, at + micro_batch_size)],
                        rows.max_documents,
                    )
                )
                for at in range(first, first + share, micro_batch_size)
            ]

    return _prefetched(steps, PREFETCH_STEPS)


def validation_batches(
    rows: RowSource,
    micro_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    max_rows: int | None = None,
    seed: int = 0,
) -> Iterator[Batch]:
    """Yield every stored row once over all ranks, or a sample of `max_rows` drawn by `seed`.

    The packing plan is sorted by length: its first rows are the longest documents, not a sample. The sample
    is the same at every validation. Every rank gets equally many micro-batches, filled up with rows of
    padding, which carry no loss.
    """
    stored = np.arange(len(rows))
    if max_rows is not None and max_rows < len(rows):
        stored = np.sort(row_permutation(seed, 0, len(rows))[:max_rows])
    total = len(stored)
    padding = padding_row(rows.sequence_length)

    def micro_batches() -> Iterator[Batch]:
        for begin in range(0, total, micro_batch_size * world_size):
            at = begin + rank * micro_batch_size
            chosen = [
                rows.stored_row(int(stored[i])) if i < total else padding
                for i in range(at, at + micro_batch_size)
            ]
            yield _pinned(collate(chosen, rows.max_documents))

    return _prefetched(micro_batches, PREFETCH_STEPS)


def _pinned(batch: Batch) -> Batch:
    """Page-locked memory makes the copy to the GPU asynchronous."""
    return batch.pin_memory() if torch.cuda.is_available() else batch


def _prefetched(make: Callable[[], Iterator[T]], depth: int) -> Iterator[T]:
    """Run an iterator in a thread, `depth` items ahead; its errors are raised here."""
    items: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: T | None, error: BaseException | None) -> None:
        while not stop.is_set():
            try:
                return items.put((item, error), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in make():
                put(item, None)
                if stop.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:  # handed over to the consumer, which raises it
            put(None, error)

    thread = threading.Thread(target=work, name="mengya-loader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = items.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()

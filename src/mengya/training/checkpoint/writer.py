"""Saving while training continues: a thread writes one checkpoint at a time; a two-phase commit over ranks.

Takes a function that writes files into a folder and calls it in the background; knows nothing of
models, tensors or what is in the files.

A strategy says with `num_writers` how many ranks have something to write: 1 where rank 0 holds
everything (one device, DDP), the number of ranks where each holds a shard. A save goes through the same
phases on all ranks:

    preparing   `start`, on every rank at the same step: ranks below `num_writers` give a `write(folder)`.
                What needs collectives or the live tensors (gathering, copying to the host) is done
                before, by the loop. `write` runs in a thread: it may not communicate, reads only its own
                copy, and writes files that no other rank writes, into a staging folder that all ranks see.
    committing  when every rank has prepared, rank 0 seals the folder and renames it (`store.commit`);
                when one failed, all abort and rank 0 removes the staging folder.

Before every step each rank gives its `status`; the loop sums them over ranks in the host vector that it
reduces anyway, and `advance` moves every rank alike by the sums. So no rank is ever ahead of another.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from mengya.errors import UserError
from mengya.runtime.files import sync_tree
from mengya.training.checkpoint.store import CheckpointStore
from mengya.training.state import TrainState

MAX_FAILURES = 3  # saves in a row; a full disk may be freed while training continues


class Status(NamedTuple):
    """Of one rank 0 or 1; summed, the number of ranks."""

    busy: int
    failed: int


class CheckpointWriter:
    """At most one save in flight.

    Args:
        num_writers: ranks below this number write files.
        warn: shows a message; called on rank 0, and on a rank whose own part failed.

    Attributes:
        saved: the state of the last committed checkpoint, or the one that the run resumed from.
        error: why the last failed save failed.
    """

    def __init__(
        self,
        store: CheckpointStore,
        rank: int,
        num_writers: int,
        warn: Callable[[str], None],
    ) -> None:
        self.saved = TrainState()
        self.error = ""
        self._store, self._warn = store, warn
        self._rank, self._num_writers = rank, num_writers
        self._phase: Literal["idle", "preparing", "committing"] = "idle"
        self._state = self.saved
        self._failures = 0
        self._job: Future[object] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mengya-checkpoint")

    @property
    def idle(self) -> bool:
        return self._phase == "idle"

    def start(self, state: TrainState, write: Callable[[Path], None]) -> None:
        """Write a checkpoint of `state` in the background; the writer must be idle."""
        assert self.idle, "one save at a time"
        self._state = deepcopy(state)
        self._phase = "preparing"
        if self._rank < self._num_writers:
            self._job = self._thread.submit(self._prepare, self._state, write)

    def status(self) -> Status:
        """Of this rank, to be summed over ranks and given to `advance`."""
        if self._job is None:
            return Status(busy=0, failed=0)
        if not self._job.done():
            return Status(busy=1, failed=0)
        return Status(busy=0, failed=int(self._job.exception() is not None))

    def advance(self, ranks: Status) -> None:
        """Go to the next phase when every rank is done with this one.

        Args:
            ranks: the sum of all `status`.

        Raises:
            UserError: MAX_FAILURES saves in a row could not be written.
        """
        if self.idle or ranks.busy:
            return
        job, self._job = self._job, None
        if ranks.failed:
            self._phase = "idle"
            self._abort(job.exception() if job is not None else None)
        elif self._phase == "preparing" and self._num_writers > 1:
            self._phase = "committing"
            if self._rank == 0:
                self._job = self._thread.submit(self._store.commit, self._state)
        else:
            self._phase, self.saved, self._failures = "idle", self._state, 0

    def wait(self, all_reduce: Callable[[Tensor], Tensor]) -> None:
        """Wait until the writer is idle; `saved` says what came of it.

        Args:
            all_reduce: sums a host vector over all ranks, which call this together.
        """
        while not self.idle:
            if self._job is not None:
                self._job.exception()  # blocks until it is done
            sums = all_reduce(torch.tensor(self.status(), dtype=torch.float64)).tolist()
            self.advance(Status(*map(int, sums)))

    def close(self) -> None:
        """End the thread after its work; after an error of the loop too, where ranks do not meet."""
        self._thread.shutdown()

    def _prepare(self, state: TrainState, write: Callable[[Path], None]) -> None:
        staging = self._store.staging(state.step)
        staging.mkdir(parents=True, exist_ok=True)
        write(staging)
        sync_tree(staging)
        if self._num_writers == 1:
            self._store.commit(state)

    def _abort(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, (OSError, SafetensorError, UserError)):
            raise error  # not the disk but a bug: do not hide it behind another try
        if self._rank == 0:
            shutil.rmtree(self._store.staging(self._state.step), ignore_errors=True)
        self._failures += 1
        self.error = (
            f"checkpoint {self._store.path(self._state.step)} could not be written: "
            f"{error or 'another process failed, see its message'}"
        )
        if self._failures >= MAX_FAILURES:
            raise UserError(
                f"{self.error}; {self._failures} saves in a row failed. Earlier checkpoints are "
                "complete: free some space, then resume with resume=true"
            )
        if self._rank == 0 or error is not None:
            self._warn(
                f"{self.error}. Earlier checkpoints are complete, training continues and the next save "
                f"tries again ({self._failures} of {MAX_FAILURES} failures in a row before it stops)"
            )

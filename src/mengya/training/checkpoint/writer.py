"""Saving while training goes on: one checkpoint at a time is written by a thread, then published.

Takes a function that writes files into a folder and calls it in the background; knows nothing of
models, tensors or what is in the files.

How several ranks save together. A strategy says with `writers` on how many ranks there is something
to write: 1 where rank 0 holds everything (one device, DDP), the number of ranks where each holds a
shard. A save then goes through the same stages on all ranks:

    start    every rank, same step: ranks below `writers` give a `write(folder)`. What needs
             collectives or the live tensors (gathering, copying to the host) is done before, by the
             loop. `write` runs in a thread: it may not communicate, reads only its own copy, and
             writes files that no other rank writes, into a folder that all ranks see.
    votes    before every step each rank says whether it is busy, and whether it failed; the loop adds
             the votes to the host vector that it sums over ranks anyway.
    settle   every rank gets the same sums and so moves on alike: when nobody is busy, rank 0 is told
             to publish (seal, rename, links), or all drop the draft because somebody failed.

Only the summed votes move a rank from stage to stage, so no rank is ever ahead of another.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from mengya.errors import UserError
from mengya.runtime.files import sync_tree
from mengya.training.checkpoint.store import Checkpoints, TrainState

MAX_FAILURES = 3  # saves in a row; a full disk may be freed while training goes on


class Saver:
    """At most one save in flight.

    Args:
        writers: ranks below this number write files.
        say: shows a message; called on rank 0, and on a rank whose own part failed.

    Attributes:
        saved: the state of the last checkpoint that was published, or that the loop came from.
        trouble: why the last failed save failed.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        rank: int,
        writers: int,
        say: Callable[[str], None],
    ) -> None:
        self.saved = TrainState()
        self.trouble = ""
        self._checkpoints, self._say = checkpoints, say
        self._rank, self._writers = rank, writers
        self._stage: Literal["idle", "writing", "publishing"] = "idle"
        self._state = self.saved
        self._failures = 0
        self._job: Future[object] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mengya-saver")

    @property
    def idle(self) -> bool:
        return self._stage == "idle"

    def start(self, state: TrainState, write: Callable[[Path], None]) -> None:
        """Write a checkpoint of `state` in the background; the save before must be finished."""
        assert self.idle, "one save at a time"
        self._state = deepcopy(state)
        self._stage = "writing"
        if self._rank < self._writers:
            self._job = self._thread.submit(self._write, self._state, write)

    def votes(self) -> tuple[int, int]:
        """(busy, failed) of this rank, to be summed over ranks and given to `settle`."""
        if self._job is None:
            return 0, 0
        if not self._job.done():
            return 1, 0
        return 0, int(self._job.exception() is not None)

    def settle(self, busy: int, failed: int) -> None:
        """Move to the next stage when every rank is done with this one.

        Raises:
            UserError: MAX_FAILURES saves in a row could not be written.
        """
        if self.idle or busy:
            return
        job, self._job = self._job, None
        if failed:
            self._stage = "idle"
            self._failed(job.exception() if job is not None else None)
        elif self._stage == "writing" and self._writers > 1:
            self._stage = "publishing"
            if self._rank == 0:
                self._job = self._thread.submit(self._checkpoints.publish, self._state)
        else:
            self._stage, self.saved, self._failures = "idle", self._state, 0

    def finish(self, total: Callable[[Tensor], Tensor]) -> None:
        """Wait until nothing is in flight; `saved` says what came of it.

        Args:
            total: adds a host vector over all ranks; every rank must call this at the same place.
        """
        while not self.idle:
            if self._job is not None:
                self._job.exception()  # blocks until it is done
            busy, failed = total(torch.tensor(self.votes(), dtype=torch.float64)).tolist()
            self.settle(int(busy), int(failed))

    def close(self) -> None:
        """End the thread after its work; for the way out of an error, where ranks do not meet."""
        self._thread.shutdown()

    def _write(self, state: TrainState, write: Callable[[Path], None]) -> None:
        draft = self._checkpoints.draft(state.step)
        draft.mkdir(parents=True, exist_ok=True)
        write(draft)
        sync_tree(draft)
        if self._writers == 1:
            self._checkpoints.publish(state)

    def _failed(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, (OSError, SafetensorError, UserError)):
            raise error  # not the disk: a defect, which would only hide behind another try
        draft = self._checkpoints.draft(self._state.step)
        if self._rank == 0:
            shutil.rmtree(draft, ignore_errors=True)
        self._failures += 1
        self.trouble = (
            f"checkpoint {self._checkpoints.path(self._state.step)} could not be written: "
            f"{error or 'another process failed, see its message'}"
        )
        if self._failures >= MAX_FAILURES:
            raise UserError(
                f"{self.trouble}; {self._failures} saves in a row failed. Earlier checkpoints are "
                "whole: free some space, then continue with resume=true"
            )
        if self._rank == 0 or error is not None:
            self._say(
                f"{self.trouble}. Earlier checkpoints are whole, training goes on and the next save "
                f"tries again ({self._failures} of {MAX_FAILURES} failures in a row before it stops)"
            )

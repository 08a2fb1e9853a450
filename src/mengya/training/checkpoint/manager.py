"""Between a live run and its checkpoints: save while training continues, resume, rewind after bad steps.

Takes the tensors of a run by name and functions that write and load the model's folder. This is where
a strategy that shards its tensors gives every rank's part (writer.py says how ranks save together).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.training.checkpoint.snapshot import HostSnapshot
from mengya.training.checkpoint.store import CheckpointStore
from mengya.training.checkpoint.tensor_files import Part, own_part, write_part
from mengya.training.checkpoint.writer import CheckpointWriter
from mengya.training.distributed.strategy import Strategy
from mengya.training.health import quarantine
from mengya.training.health.watchdog import Trouble
from mengya.training.run_config import LoopConfig
from mengya.training.state import TrainState


class CheckpointManager:
    """Saves and restores everything that one run is made of.

    Args:
        model_tensors: the tensors of the model's folder as they are now. write_model: writes that
            folder from a copy of them, in another thread. read_model: loads it into a model.
        warn: shows a message, from any rank.
        master: fp32 weights to save in addition to a folder of shorter dtype, or None.
        write_layout: writes which optimizer updates what. check: refuses a checkpoint that this run
            cannot resume from, before anything of it is loaded.
        documents: step -> what is known of the documents of its batches, for the quarantine.

    Attributes:
        store, writer, snapshot: what it works with.
        stall_seconds: time that the loop spent on saves since it was last set to 0.
    """

    def __init__(
        self,
        run_dir: Path,
        loop: LoopConfig,
        strategy: Strategy,
        model: CausalLM,
        optimizers: Sequence[Optimizer],
        model_tensors: Callable[[], Mapping[str, Tensor]],
        write_model: Callable[[Path, Mapping[str, Tensor]], object],
        read_model: Callable[[CausalLM, Path], object],
        warn: Callable[[str], None],
        master: Callable[[], Mapping[str, Tensor] | None] = lambda: None,
        documents: Callable[[int], Iterable[Mapping[str, Any]]] = lambda step: [],
        write_layout: Callable[[Path], object] = lambda folder: None,
        check: Callable[[Path], object] = lambda checkpoint: None,
    ) -> None:
        self._run_dir, self._loop, self._strategy = run_dir, loop, strategy
        self._model, self._optimizers = model, optimizers
        self._model_tensors, self._master = model_tensors, master
        self._write_model, self._read_model = write_model, read_model
        self._documents = documents
        self._write_layout, self._check = write_layout, check
        self._warn = warn if strategy.rank == 0 else lambda text: None
        self.snapshot = HostSnapshot(strategy.device)
        self.store = CheckpointStore(run_dir, loop.keep_last)
        self.writer = CheckpointWriter(self.store, strategy.rank, strategy.num_writers, warn)
        self.stall_seconds = 0.0

    def resume(self) -> TrainState:
        """Load the newest undamaged checkpoint, if there is one; its state, or a new one.

        Raises:
            UserError: all checkpoints are damaged, or `check` refuses the newest.
        """
        if self._strategy.rank == 0:
            self.store.recover(self._warn)
        self._strategy.barrier()
        checkpoint = self.store.latest()
        if checkpoint is None:
            return TrainState()
        self._check(checkpoint)
        self._strategy.load_full_weights(self._model, lambda m: self._read_model(m, checkpoint))
        self._strategy.load_optimizer_state(self._optimizers, self._model, checkpoint)
        state = self.store.read_state(checkpoint)
        self.writer.saved = deepcopy(state)
        return state

    def save(self, state: TrainState) -> None:
        """Copy what a checkpoint of `state` holds; its files are written while training continues."""
        started = time.perf_counter()
        state.grad_scaler = self._strategy.scaler.state_dict()
        rank, num_writers = self._strategy.rank, self._strategy.num_writers
        state_tensors = {
            "optimizer": self._strategy.optimizer_state(self._optimizers, self._model),
            "master": self._strategy.local_shards(self._master() or {}),
        }
        parts = {name: own_part(tensors, rank) for name, tensors in state_tensors.items()}
        copies = self.snapshot.copy(
            {
                "model": self._strategy.gather_full(self._model_tensors()),
                **{name: part.tensors for name, part in parts.items()},
            }
        )

        def write(folder: Path) -> None:
            self.snapshot.wait()
            if rank == 0:
                self._write_model(folder, copies["model"])
                self._write_layout(folder)
            for name, part in parts.items():
                if copies[name]:
                    write_part(folder, name, Part(copies[name], part.offsets), rank, num_writers)

        self.writer.start(state, write)
        self.stall_seconds += time.perf_counter() - started

    def wait(self, state: TrainState) -> None:
        """Wait for the save before, if it is still written; the best checkpoint is one that was saved."""
        started = time.perf_counter()
        self.writer.wait(self._strategy.all_reduce)
        saved = self.writer.saved
        state.best_loss, state.best_step = saved.best_loss, saved.best_step
        self.stall_seconds += time.perf_counter() - started

    def save_final(self, state: TrainState) -> None:
        """Save `state` unless it is, and wait for it.

        Raises:
            UserError: it cannot be written; earlier checkpoints are complete.
        """
        self.wait(state)
        if self.writer.saved.step != state.step:
            self.save(state)
            self.wait(state)
        if self.writer.saved.step != state.step:
            raise UserError(
                f"{self.writer.error}; the run ends without it. Earlier checkpoints are complete: "
                "free some space, then resume with resume=true"
            )

    def rewind(self, state: TrainState, trouble: Trouble) -> TrainState:
        """Return to the last checkpoint before the trouble; its batches are skipped from now on.

        The rows of a step stay a function of the step: a quarantined one is skipped. A run that is
        killed before the next checkpoint meets the same bad steps again, and decides the same.

        Returns:
            The state to continue from: `state` itself when spikes came before the first checkpoint.

        Raises:
            UserError: no checkpoint is old enough, or the run went back loop.max_rewinds times.
        """
        self.writer.wait(self._strategy.all_reduce)
        first = trouble.steps[0]
        reachable = self.store.has_until(first)
        if trouble.spike and not reachable:
            self._warn(f"{trouble.reason}; no checkpoint is old enough to go back to")
            state.losses = []
            return state
        file = self._run_dir / quarantine.FILE
        if self._strategy.rank == 0:
            quarantine.note(self._run_dir, trouble.steps, trouble.reason, self._documents)
        if not reachable or state.rewinds >= self._loop.max_rewinds:
            why = "the same problem came again" if reachable else "no checkpoint is older than this"
            raise UserError(
                f"{trouble.reason}. The run went back {state.rewinds} times "
                f"(loop.max_rewinds={self._loop.max_rewinds}) and {why}. Look at the documents of "
                f"these steps in {file}, then resume with resume=true and a lower optimizer.lr, or "
                "with loop.spike_threshold=null where such losses are expected"
            )
        if self._strategy.rank == 0:
            self.store.drop_after(first)
        back = self.resume()
        back.quarantined = sorted({*state.quarantined, *trouble.steps})
        back.rewinds = state.rewinds + 1
        self.writer.saved = deepcopy(back)
        self._warn(
            f"{trouble.reason}; back to step {back.step} without the batches of steps "
            f"{', '.join(str(step + 1) for step in trouble.steps)}, whose documents are in {file} "
            f"({back.rewinds} of {self._loop.max_rewinds} times)"
        )
        return back

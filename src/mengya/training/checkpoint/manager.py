"""Between a live run and its checkpoints: copy and save while training goes on, go back after trouble.

Takes the tensors of a run by name and functions that write and restore the model's folder. This is
where a strategy that shards its tensors gives every rank's part (see saver.py for how ranks meet).
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
from mengya.training.checkpoint.snapshot import HostCopy
from mengya.training.checkpoint.store import Checkpoints, TrainState
from mengya.training.checkpoint.tensor_files import Part, own_part, write_part
from mengya.training.checkpoint.writer import Saver
from mengya.training.config import LoopConfig
from mengya.training.distributed.build import SingleDevice
from mengya.training.health import quarantine
from mengya.training.health.watchdog import Trouble


class Checkpointer:
    """Saves and restores everything that one run is made of.

    Args:
        model_tensors: the tensors of the model's folder as they are now. write_model: writes that
            folder from a copy of them, in another thread. read_model: loads it into a model.
        master: fp32 weights to save beside a folder of shorter dtype, or None.
        write_layout: writes which optimizer moves what. check: refuses a checkpoint that this run cannot
            resume from, before anything of it is loaded.
        documents: step -> what is known of the documents of its batches, for the quarantine.

    Attributes:
        checkpoints, saver, host_copy: what it works with; saver and its votes after `open`.
        stall_seconds: time that the loop spent on saves since it was last set to 0.
    """

    def __init__(
        self,
        run_dir: Path,
        loop: LoopConfig,
        strategy: SingleDevice,
        model: CausalLM,
        optimizers: Sequence[Optimizer],
        model_tensors: Callable[[], Mapping[str, Tensor]],
        write_model: Callable[[Path, Mapping[str, Tensor]], object],
        read_model: Callable[[CausalLM, Path], object],
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
        self.host_copy = HostCopy(strategy.device)
        self.checkpoints = Checkpoints(run_dir, loop.keep_last)
        self.stall_seconds = 0.0

    def resume(self, say: Callable[[str], None]) -> TrainState:
        """Restore the newest good checkpoint, if there is one; its state, or a new one.

        Raises:
            UserError: all checkpoints are damaged, or `check` refuses the newest.
        """
        if self._strategy.rank == 0:
            self.checkpoints.recover(say)
        self._strategy.barrier()
        checkpoint = self.checkpoints.latest()
        if checkpoint is None:
            return TrainState()
        self._check(checkpoint)
        self._strategy.refill(self._model, lambda whole: self._read_model(whole, checkpoint))
        self._strategy.load_optimizer_state(self._optimizers, self._model, checkpoint)
        return self.checkpoints.read_state(checkpoint)

    def open(self, state: TrainState, say: Callable[[str], None]) -> None:
        """Be ready to save a run that stands at `state`; `say` shows a message of any rank."""
        self._say = say if self._strategy.rank == 0 else lambda text: None
        self.saver = Saver(self.checkpoints, self._strategy.rank, self._strategy.writers, say)
        self.saver.saved = deepcopy(state)

    def start(self, state: TrainState) -> None:
        """Copy what a checkpoint of `state` holds; its files are written while training goes on."""
        started = time.perf_counter()
        state.grad_scaler = self._strategy.scaler.state_dict()
        rank, writers = self._strategy.rank, self._strategy.writers
        state_tensors = {
            "optimizer": self._strategy.optimizer_state(self._optimizers, self._model),
            "master": self._strategy.shards(self._master() or {}),
        }
        parts = {name: own_part(tensors, rank) for name, tensors in state_tensors.items()}
        copy = self.host_copy.take(
            {
                "model": self._strategy.gather(self._model_tensors()),
                **{name: part.tensors for name, part in parts.items()},
            }
        )

        def write(folder: Path) -> None:
            self.host_copy.wait()
            if rank == 0:
                self._write_model(folder, copy["model"])
                self._write_layout(folder)
            for name, part in parts.items():
                if copy[name]:
                    write_part(folder, name, Part(copy[name], part.offsets), rank, writers)

        self.saver.start(state, write)
        self.stall_seconds += time.perf_counter() - started

    def finish(self, state: TrainState) -> None:
        """Wait for the save before, if it is still written; a best checkpoint that failed is none."""
        started = time.perf_counter()
        self.saver.finish(self._strategy.sum)
        saved = self.saver.saved
        state.best_loss, state.best_step = saved.best_loss, saved.best_step
        self.stall_seconds += time.perf_counter() - started

    def end(self, state: TrainState) -> None:
        """See to it that `state` is saved.

        Raises:
            UserError: it cannot be written; earlier checkpoints are whole.
        """
        self.finish(state)
        if self.saver.saved.step != state.step:
            self.start(state)
            self.finish(state)
        if self.saver.saved.step != state.step:
            raise UserError(
                f"{self.saver.trouble}; the run ends without it. Earlier checkpoints are whole: "
                "free some space, then continue with resume=true"
            )

    def go_back(self, state: TrainState, trouble: Trouble) -> TrainState:
        """Return to the last checkpoint before the trouble; its batches are left out from now on.

        The rows of a step stay a function of the step: a quarantined one is passed over. A run that is
        killed before the next checkpoint meets the same trouble again, and decides the same.

        Returns:
            The state to go on from: `state` itself when spikes came before the first checkpoint.

        Raises:
            UserError: no checkpoint is old enough, or the run went back loop.max_rewinds times.
        """
        self.saver.finish(self._strategy.sum)
        first = trouble.steps[0]
        reachable = self.checkpoints.has_until(first)
        if trouble.spike and not reachable:
            self._say(f"{trouble.reason}; no checkpoint is old enough to go back to")
            state.losses = []
            return state
        file = self._run_dir / quarantine.FILE
        if self._strategy.rank == 0:
            quarantine.note(self._run_dir, trouble.steps, trouble.reason, self._documents)
        if not reachable or state.rewinds >= self._loop.max_rewinds:
            why = "trouble came again" if reachable else "no checkpoint is older than this"
            raise UserError(
                f"{trouble.reason}. The run went back {state.rewinds} times "
                f"(loop.max_rewinds={self._loop.max_rewinds}) and {why}. Look at the documents of "
                f"these steps in {file}, then go on with resume=true and a lower optimizer.lr, or "
                "loop.spike_threshold=null where such losses are no fault"
            )
        if self._strategy.rank == 0:
            self.checkpoints.drop_after(first)
        back = self.resume(self._say)
        back.quarantined = sorted({*state.quarantined, *trouble.steps})
        back.rewinds = state.rewinds + 1
        self.saver.saved = deepcopy(back)
        self._say(
            f"{trouble.reason}; back to step {back.step} without the batches of steps "
            f"{', '.join(str(step + 1) for step in trouble.steps)}, whose documents are in {file} "
            f"({back.rewinds} of {self._loop.max_rewinds} times)"
        )
        return back

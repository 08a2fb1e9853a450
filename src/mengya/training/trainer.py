"""The one training loop: pretraining, SFT and DPO differ only in the loss and the batches given to it.

Takes a model, a loss, an iterator of micro-batches by step, and a strategy; gives checkpoints and
metrics. Knows no tokenizer, no files of data, and not how many devices there are.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mengya.batch import Batch
from mengya.errors import UserError
from mengya.losses.mean_loss import sum_loss
from mengya.losses.token_nll import Loss
from mengya.models.causal_lm import CausalLM
from mengya.runtime.jsonl import json_line, remove_cut_line
from mengya.runtime.seeding import seed_step
from mengya.training.checkpoint.manager import CheckpointManager
from mengya.training.checkpoint.writer import Status
from mengya.training.distributed.strategy import Strategy
from mengya.training.health.watchdog import NO_LABEL, Trouble, Watchdog
from mengya.training.optim.build import set_lr
from mengya.training.run_config import LoopConfig
from mengya.training.schedule import ScheduleConfig, lr_factor
from mengya.training.state import TrainState
from mengya.training.stop_signal import StopSignal
from mengya.training.telemetry.events import EventLog
from mengya.training.telemetry.expert_load import ExpertLoad
from mengya.training.telemetry.metrics import MetricsLog
from mengya.training.telemetry.power import PowerMeter, energy_counter
from mengya.training.telemetry.progress import ProgressBar
from mengya.training.telemetry.window import LogWindow
from mengya.training.telemetry.yardsticks import Yardsticks


@dataclass(frozen=True)
class Data:
    """Where the batches of a run come from.

    Attributes:
        batches: step -> the steps from there on, each the micro-batches of this rank.
        validation: called for every validation: the held-out batches of this rank. None: no validation.
        characters: of text that the held-out labels stand for; gives bits per character.
        window: longest context of a held-out token, shown with the figures: they depend on it.
        seen: (since, step) -> metrics of what the steps before `step` read, shares from `since` on.
    """

    batches: Callable[[int], Iterator[list[Batch]]]
    validation: Callable[[], Iterable[Batch]] | None = None
    characters: int | None = None
    window: int | None = None
    seen: Callable[[int, int], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Optimization:
    """How the weights are updated.

    Attributes:
        optimizers: over the parameters of the model that require gradients.
        max_grad_norm: gradients are clipped to this global norm.
    """

    optimizers: Sequence[Optimizer]
    schedule: ScheduleConfig
    max_steps: int
    max_grad_norm: float


@dataclass(frozen=True)
class Observer:
    """What is shown and logged of a run.

    Attributes:
        progress: shows steps and messages.
        open_metrics: step -> the log of metrics from there on; called on rank 0.
        sample: gives a few completions of a model as dictionaries, or None.
        yardsticks: what measures loop.yardsticks, on rank 0.
        events: where skipped steps, spikes and returns to a checkpoint are noted.
        flops_per_token, peak_flops: of one real token, and of one device per second; they give the MFU.
    """

    progress: ProgressBar
    open_metrics: Callable[[int], MetricsLog]
    sample: Callable[[CausalLM], list[dict[str, Any]]] | None = None
    yardsticks: Yardsticks | None = None
    events: EventLog = field(default_factory=lambda: EventLog(None))
    flops_per_token: float = 0.0
    peak_flops: float | None = None


class _Agreement(NamedTuple):
    """What all ranks know of a step before it is computed: sums over ranks.

    items, tokens: of the step. stop: ranks that got a signal. writer: of the checkpoint writers.
    pending_loss: loss sum of the oldest unresolved step; None: there is none.
    """

    items: int
    tokens: int
    stop: int
    writer: Status
    pending_loss: float | None


@dataclass
class Trainer:
    """Everything one run is made of; `fit` runs it.

    Attributes:
        model: the module whose parameters are trained and saved. module: what the strategy made of it.
        checkpoints: saves the run and goes back after bad steps.
        state: where the run starts; weights and optimizers are those of it already.
    """

    model: CausalLM
    module: nn.Module
    loss: Loss
    data: Data
    optimization: Optimization
    strategy: Strategy
    observer: Observer
    checkpoints: CheckpointManager
    loop: LoopConfig
    seed: int
    run_dir: Path
    state: TrainState = field(default_factory=TrainState)

    def __post_init__(self) -> None:
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._progress = self.observer.progress
        writes = self.strategy.rank == 0
        self._metrics = self.observer.open_metrics(self.state.step) if writes else None
        self._values: dict[str, float] = {}
        self._power = PowerMeter(energy_counter(self.strategy.device))
        self._watchdog, self._experts, self._window = self._start_monitors()

    def fit(self) -> bool:
        """Train to `max_steps`.

        Returns:
            True when the run is complete, False when a signal stopped it; both are saved.

        Raises:
            UserError: when a checkpoint cannot be written, or going back to one does not help.
        """
        self._progress.start_at(self.state.step)
        try:
            with StopSignal() as stop, self._progress:
                while not self._train(stop):
                    pass
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{self.run_dir}: {error}; no partial checkpoint was left: free some space, then "
                "resume with resume=true"
            ) from error
        finally:
            self.checkpoints.writer.close()
            if self._metrics is not None:
                self._metrics.close()
        return self.state.step >= self.optimization.max_steps

    def _start_monitors(self) -> tuple[Watchdog, ExpertLoad, LogWindow]:
        """New ones, for a start from `state`; the loss scaler is set to it too."""
        self.checkpoints.stall_seconds = 0.0
        if self.state.grad_scaler:
            self.strategy.scaler.load_state_dict(self.state.grad_scaler)
        return (
            Watchdog(self.loop, self.state, self._progress.say, self.observer.events.add),
            ExpertLoad(self.model, self.strategy.all_reduce),
            LogWindow(self.strategy.device),
        )

    def _train(self, stop: StopSignal) -> bool:
        """Train from `state` to the end or a signal; False where bad steps moved `state` back."""
        try:
            steps = self.data.batches(self.state.step)
            while self.state.step < self.optimization.max_steps:
                started = time.perf_counter()
                if self._step(next(steps), stop):
                    break
                self._window.seconds += time.perf_counter() - started
                self._after_step()
            self._drain()
        except Trouble as trouble:
            self._rewind(trouble)
            return False
        self.checkpoints.save_final(self.state)
        return True

    def _step(self, micro_batches: Sequence[Batch], stop: StopSignal) -> bool:
        """One optimizer step, or none when some rank wants to stop; returns whether to stop."""
        agreed = self._agree(micro_batches, stop)
        self.checkpoints.writer.advance(agreed.writer)
        if agreed.pending_loss is not None:
            self._watchdog.resolve(agreed.pending_loss)
        if agreed.stop:
            return True
        step = self.state.step
        if step in self.state.quarantined:
            self._progress.say(f"step {step + 1} skipped: its batch is in quarantine")
            self.observer.events.add("skipped", step + 1, "its batch is in quarantine")
            self.state.skipped += 1
        else:
            seed_step(self.seed, step, self.strategy.rank)
            set_lr(self.optimization.optimizers, self._lr_factor(step))
            if agreed.items == 0:
                self._watchdog.record_skipped(step, NO_LABEL)
            else:
                sums = self._forward_backward(micro_batches, agreed.items)
                self._update(sums, agreed)
        self.state.step += 1
        return False

    def _agree(self, micro_batches: Sequence[Batch], stop: StopSignal) -> _Agreement:
        """Sum over ranks what each knows, in one vector on the host."""
        items = sum(self.loss.items(batch) for batch in micro_batches)
        tokens = sum(int((batch.document_ids >= 0).sum()) for batch in micro_batches)
        pending = self._watchdog.pending_loss()
        own = [items, tokens, stop.requested, *self.checkpoints.writer.status(), pending or 0.0]
        *counts, loss = self.strategy.all_reduce(torch.tensor(own, dtype=torch.float64)).tolist()
        items, tokens, stops, busy, failed = map(int, counts)
        # Ranks have recorded the same steps: none is pending here where none is on another rank.
        pending = None if pending is None else loss
        return _Agreement(items, tokens, stops, Status(busy, failed), pending)

    def _forward_backward(self, micro_batches: Sequence[Batch], items: int) -> dict[str, Tensor]:
        """Accumulate the gradients of the global mean; this rank's sums of loss and metrics, on device."""
        self.model.train()
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(micro_batches, 1):
            batch = batch.to(self.strategy.device, non_blocking=True)
            with self.strategy.accumulate(self.module, last=number == len(micro_batches)):
                with self.strategy.autocast():
                    result = self.loss(self.module, batch)
                self.strategy.backward(result.loss / items)
            for name, value in {"loss": result.loss.detach(), **result.metrics}.items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _update(self, sums: dict[str, Tensor], agreed: _Agreement) -> None:
        """Move the weights, and record the step without waiting for the device."""
        self.checkpoints.snapshot.before_update()
        optimization = self.optimization
        norm = self.strategy.step(
            optimization.optimizers, self._parameters, optimization.max_grad_norm
        )
        items, tokens = agreed.items, agreed.tokens
        self._watchdog.record(self.state.step, items, tokens, sums["loss"], norm)
        self.state.tokens += tokens
        self._experts.after_step(norm.isfinite())
        self._window.add(sums, items, tokens, norm)

    def _lr_factor(self, step: int) -> float:
        return lr_factor(step, self.optimization.max_steps, self.optimization.schedule)

    def _after_step(self) -> None:
        """Log, validate, sample and save, each where it is due."""
        if self._due(self.loop.log_every):
            self._log()
        saves, samples = self._due(self.loop.save_every), self._due(self.loop.sample_every)
        # Every checkpoint is validated, so that the best of them is known.
        validates = saves or self._due(self.loop.eval_every)
        measures = bool(self.loop.yardsticks) and self._due(self.loop.yardstick_every)
        if validates or samples or measures:
            self._drain()
        if saves:
            self.checkpoints.wait(self.state)
        if validates:
            self._validate(saves)
        if measures:
            self._measure_yardsticks()
        if samples:
            self._write_samples()
        if saves:
            self.checkpoints.save(self.state)

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.optimization.max_steps

    def _drain(self) -> None:
        """Resolve all pending steps: before saving, so that no damaged weights are saved.

        The device has then finished them; that time belongs to the steps.
        """
        started = time.perf_counter()
        while (pending := self._watchdog.pending_loss(drain=True)) is not None:
            loss = torch.tensor([pending], dtype=torch.float64)
            self._watchdog.resolve(self.strategy.all_reduce(loss).item())
        self._window.seconds += time.perf_counter() - started

    def _rewind(self, trouble: Trouble) -> None:
        back = self.checkpoints.rewind(self.state, trouble)
        if back is self.state:
            return
        self.observer.events.add(
            "rewind", self.state.step, f"to step {back.step}: {trouble.reason}"
        )
        self.state = back
        if self._metrics is not None:
            self._metrics.cut(back.step)
        self._values = {}
        self._watchdog, self._experts, self._window = self._start_monitors()

    def _log(self) -> None:
        self._drain()
        self._values |= self._window.values(self.strategy.all_reduce)
        self._values |= self._experts.report(self._progress.say) | {
            "lr_factor": self._lr_factor(self.state.step - 1),
            "lr": self.optimization.optimizers[0].param_groups[0]["lr"],
            "tokens": self.state.tokens,
            "skipped": self.state.skipped,
        }
        if self.checkpoints.stall_seconds:
            self._values["save_stall_seconds"] = self.checkpoints.stall_seconds
        if self.observer.peak_flops is not None:
            peak = self.observer.peak_flops * self.strategy.world_size
            flops = self._values["tokens_per_second"] * self.observer.flops_per_token
            self._values["mfu"] = flops / peak
        self._values.pop("power_watts", None)  # of the last line
        if self.strategy.device.type == "cuda":
            self._values["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
            self._values |= self._power.values(self.strategy.all_reduce)
        if self._metrics is not None and self.data.seen is not None:
            since = (self.state.step - 1) // self.loop.log_every * self.loop.log_every
            self._values |= self.data.seen(since, self.state.step)
        self._progress.update(self.state.step, self._values)
        if self._metrics is not None:
            self._metrics.log(self.state.step, self._values)
        self._values.pop("save_stall_seconds", None)
        self.checkpoints.stall_seconds = 0.0
        self._window = LogWindow(self.strategy.device)

    def _validate(self, saves: bool) -> None:
        if self.data.validation is None:
            return
        device, all_reduce = self.strategy.device, self.strategy.all_reduce
        self.model.eval()
        with self.strategy.autocast():
            sums, items = sum_loss(
                self.model, self.loss, self.data.validation(), device, all_reduce
            )
        if items == 0:
            raise UserError(
                "the validation set has no labelled token; check its data or leave it out"
            )
        values = {f"validation/{name}": value / items for name, value in sums.items()}
        if "nll" in sums and self.data.characters:
            values["validation/bits_per_char"] = sums["nll"] / math.log(2) / self.data.characters
        # Without the auxiliary losses: the best model is the best predictor.
        loss = values.get("validation/nll", values["validation/loss"])
        best = self.state.best_loss
        # Not `loss < best`, which no loss ever is where an earlier version stored NaN as the best.
        if saves and math.isfinite(loss) and (best is None or not best <= loss):
            self.state.best_loss, self.state.best_step = loss, self.state.step
        window = f" (window {self.data.window})" if self.data.window else ""
        self._progress.say(
            f"step {self.state.step} validation{window}: "
            + ", ".join(f"{n.removeprefix('validation/')} {v:.4f}" for n, v in values.items())
        )
        if self._metrics is not None:
            self._metrics.log(self.state.step, values)

    def _measure_yardsticks(self) -> None:
        """On rank 0, where sharded weights are gathered; the other ranks wait."""
        started = time.perf_counter()
        model = self.strategy.full_model(self.model, self.strategy.device)
        if model is None or self.observer.yardsticks is None or self._metrics is None:
            return
        values = self.observer.yardsticks.measure(model, self.state.step, started)
        self._metrics.log(self.state.step, {**values, "tokens": self.state.tokens})

    def _write_samples(self) -> None:
        if self.observer.sample is None:
            return
        model = self.strategy.full_model(self.model, self.strategy.device)
        if model is None:
            return
        model.eval()
        path = self.run_dir / "samples.jsonl"
        remove_cut_line(path)
        with path.open("a", encoding="utf-8") as file:
            for sample in self.observer.sample(model):
                file.write(json_line({"step": self.state.step, **sample}))

"""The one training loop: pretraining, SFT and DPO differ only in the loss and the batches given to it.

Takes a model, a loss, an iterator of micro-batches by step, and a strategy; gives checkpoints and
metrics. Knows no tokenizer, no files of data, and not how many devices there are.
"""

from __future__ import annotations

import errno
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mengya.batch import Batch
from mengya.errors import UserError
from mengya.losses.mean_loss import sum_loss
from mengya.losses.token_nll import Loss
from mengya.models.causal_lm import CausalLM
from mengya.runtime.seeding import seed_step
from mengya.training.checkpoint.manager import Checkpointer
from mengya.training.checkpoint.store import TrainState
from mengya.training.config import LoopConfig
from mengya.training.distributed.build import SingleDevice
from mengya.training.health.watchdog import NO_LABEL, LossWatch, Trouble
from mengya.training.optim.build import set_lr
from mengya.training.schedule import ScheduleConfig, lr_factor
from mengya.training.stop_signal import StopSignal
from mengya.training.telemetry.expert_load import ExpertLoad
from mengya.training.telemetry.metrics import MetricsLog
from mengya.training.telemetry.progress import ProgressBar
from mengya.training.telemetry.window import LogWindow


@dataclass
class Trainer:
    """Everything one run is made of; `fit` runs it.

    Attributes:
        model: the module whose parameters are trained and saved. module: what the strategy made of it.
        batches: step -> the steps from there on, each the micro-batches of this rank.
        validation: gives the held-out batches of this rank anew, or None.
        characters: characters of text that the held-out labels stand for; gives bits per character.
        sample: gives a few completions of a model as dictionaries, or None.
        checkpointer: saves and restores the run.
        flops_per_token, peak_flops: of one real token, and of one device; they give the MFU.
    """

    model: CausalLM
    module: nn.Module
    loss: Loss
    batches: Callable[[int], Iterator[list[Batch]]]
    optimizers: Sequence[Optimizer]
    strategy: SingleDevice
    schedule: ScheduleConfig
    loop: LoopConfig
    max_steps: int
    max_grad_norm: float
    seed: int
    run_dir: Path
    name: str
    checkpointer: Checkpointer
    open_metrics: Callable[[int], MetricsLog]
    validation: Callable[[], Iterable[Batch]] | None = None
    characters: int | None = None
    sample: Callable[[CausalLM], list[dict[str, Any]]] | None = None
    flops_per_token: float = 0.0
    peak_flops: float | None = None
    state: TrainState = field(default_factory=TrainState)

    def fit(self) -> bool:
        """Train to `max_steps`.

        Returns:
            True when the run is complete, False when a signal stopped it; both are saved.

        Raises:
            UserError: when a checkpoint cannot be written, or going back to one does not help.
        """
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        writes = self.strategy.rank == 0
        self._metrics = self.open_metrics(self.state.step) if writes else None
        self._progress = ProgressBar(self.name, self.max_steps, self.state.step, shown=writes)
        self.checkpointer.open(self.state, self._progress.warn)
        self._begin()
        try:
            with StopSignal() as stop, self._progress:
                while not self._train(stop):
                    pass
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{self.run_dir}: {error}; checkpoints are whole: free some space, then continue "
                "with resume=true"
            ) from error
        finally:
            self.checkpointer.saver.close()
            if self._metrics is not None:
                self._metrics.close()
        return self.state.step >= self.max_steps

    def _begin(self) -> None:
        """Start, or start again, from `state` and the weights that belong to it."""
        self._watch = LossWatch(self.loop, self.state, self._progress.say)
        self._experts = ExpertLoad(self.model, self.strategy.sum)
        self._window = LogWindow(self.strategy.device)
        self.checkpointer.stall_seconds = 0.0
        self._values: dict[str, float] = {}
        if self.state.grad_scaler:
            self.strategy.scaler.load_state_dict(self.state.grad_scaler)

    def _train(self, stop: StopSignal) -> bool:
        """Train from `state` to the end or a signal; False where trouble moved `state` elsewhere."""
        try:
            steps = self.batches(self.state.step)
            while self.state.step < self.max_steps:
                started = time.perf_counter()
                if self._step(next(steps), stop):
                    break
                self._window.seconds += time.perf_counter() - started
                self._log_if_due()
                saves = self._due(self.loop.save_every)
                if saves or self._due(self.loop.eval_every) or self._due(self.loop.sample_every):
                    self._judge_all()
                if saves:
                    self.checkpointer.finish(self.state)
                # Every checkpoint is validated, so that the best of them is known.
                if saves or self._due(self.loop.eval_every):
                    self._validate(saves)
                if self._due(self.loop.sample_every):
                    self._write_samples()
                if saves:
                    self.checkpointer.start(self.state)
            self._judge_all()
        except Trouble as trouble:
            back = self.checkpointer.go_back(self.state, trouble)
            if back is not self.state:
                self.state = back
                if self._metrics is not None:
                    self._metrics.cut(back.step)
                self._begin()
            return False
        self.checkpointer.end(self.state)
        return True

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.max_steps

    def _step(self, micro_batches: Sequence[Batch], stop: StopSignal) -> bool:
        """One optimizer step, or none when some rank wishes to stop; returns whether to stop."""
        counts = [self.loss.items(batch) for batch in micro_batches]
        tokens = sum(int((batch.document_ids >= 0).sum()) for batch in micro_batches)
        own = [
            sum(counts),
            tokens,
            stop.requested,
            *self.checkpointer.saver.votes(),
            self._watch.due(),
        ]
        *whole, late_loss = self.strategy.sum(torch.tensor(own, dtype=torch.float64)).tolist()
        items, tokens, stops, busy, failed = map(int, whole)
        self.checkpointer.saver.settle(busy, failed)
        self._watch.judge(late_loss)
        if stops:
            return True
        if self.state.step in self.state.quarantined:
            self._progress.say(f"step {self.state.step + 1} skipped: its batch is in quarantine")
            self.state.skipped += 1
            self.state.step += 1
            return False
        seed_step(self.seed, self.state.step, self.strategy.rank)
        set_lr(self.optimizers, lr_factor(self.state.step, self.max_steps, self.schedule))
        if items == 0:
            self._watch.skipped(self.state.step, NO_LABEL)
            self.state.step += 1
            return False

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
        self.checkpointer.host_copy.before_update()
        norm = self.strategy.step(self.optimizers, self._parameters, self.max_grad_norm)
        self._watch.done(self.state.step, items, tokens, sums["loss"], norm)
        self.state.step += 1
        self.state.tokens += tokens
        self._experts.after_step(norm.isfinite())
        self._window.add(sums, items, tokens, norm)
        return False

    def _judge_all(self) -> None:
        """Hear of every step so far, so that no checkpoint is written over trouble.

        The device has then done all that it was given; that time belongs to the steps.
        """
        started, judged = time.perf_counter(), True
        while judged:
            loss = torch.tensor([self._watch.due(all_of_them=True)], dtype=torch.float64)
            judged = self._watch.judge(self.strategy.sum(loss).item(), all_of_them=True)
        self._window.seconds += time.perf_counter() - started

    def _log_if_due(self) -> None:
        if not self._due(self.loop.log_every):
            return
        self._judge_all()
        self._values |= self._window.values(self.strategy.sum)
        self._values |= self._experts.report(self._progress.say) | {
            "lr_factor": lr_factor(self.state.step - 1, self.max_steps, self.schedule),
            "lr": self.optimizers[0].param_groups[0]["lr"],
            "tokens": self.state.tokens,
            "skipped": self.state.skipped,
        }
        if self.checkpointer.stall_seconds:
            self._values["save_stall_seconds"] = self.checkpointer.stall_seconds
        if self.peak_flops is not None:
            peak = self.peak_flops * self.strategy.world_size
            self._values["mfu"] = self._values["tokens_per_second"] * self.flops_per_token / peak
        if self.strategy.device.type == "cuda":
            self._values["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self._progress.update(self.state.step, self._values)
        if self._metrics is not None:
            self._metrics.log(self.state.step, self._values)
        self._values.pop("save_stall_seconds", None)
        self.checkpointer.stall_seconds = 0.0
        self._window = LogWindow(self.strategy.device)

    def _validate(self, saves: bool) -> None:
        if self.validation is None:
            return
        self.model.eval()
        with self.strategy.autocast():
            sums, items = sum_loss(
                self.model, self.loss, self.validation(), self.strategy.device, self.strategy.sum
            )
        if items == 0:
            raise UserError(
                "the validation set has no labelled token; check its data or leave it out"
            )
        values = {f"validation/{name}": value / items for name, value in sums.items()}
        if "nll" in sums and self.characters:
            values["validation/bits_per_char"] = sums["nll"] / math.log(2) / self.characters
        # The load-balancing part is a means, not an end: the best model is the best predictor.
        loss = values.get("validation/nll", values["validation/loss"])
        if saves and (self.state.best_loss is None or loss < self.state.best_loss):
            self.state.best_loss, self.state.best_step = loss, self.state.step
        self._progress.say(
            f"step {self.state.step} validation: "
            + ", ".join(f"{n.removeprefix('validation/')} {v:.4f}" for n, v in values.items())
        )
        if self._metrics is not None:
            self._metrics.log(self.state.step, values)

    def _write_samples(self) -> None:
        if self.sample is None:
            return
        whole = self.strategy.whole(self.model, self.strategy.device)
        if whole is None:
            return
        whole.eval()
        with (self.run_dir / "samples.jsonl").open("a", encoding="utf-8") as file:
            for sample in self.sample(whole):
                line = {"step": self.state.step, **sample}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

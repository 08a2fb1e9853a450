"""Watches the steps of a run: those that could not be applied, and losses that spike.

Takes loss and gradient norm of every step, the same on all ranks and in order; raises `Trouble` after
several bad steps in a row. They are read two steps late, so that the host never waits for the device.
What it remembers is in the `TrainState`, so a resumed run decides as an uninterrupted one.

A step is bad when it was skipped (gradients not finite, no label), or when its loss is a spike:

    loss > m + max(spike_threshold * s, 0.5 * max(m, 1))

with m the median of the last WINDOW ordinary steps and s = 1.4826 * median |loss - m|, the standard
deviation that a normal distribution of that spread has. One bad batch is left to gradient clipping;
a row of spikes means that the weights are damaged (PaLM, Chowdhery et al. 2022, arXiv:2204.02311,
section 5.1, whose remedy this is: go back, and leave out the batches around the spike).
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mengya.errors import UserError
from mengya.training.run_config import LoopConfig
from mengya.training.state import TrainState

WINDOW, ENOUGH = 64, 32  # ordinary losses remembered, and needed before a loss counts as a spike
NO_LABEL = "no labelled token in the step"
LAG = 2  # steps: the host reads a loss when the device has long computed it


class Trouble(Exception):
    """Several bad steps in a row.

    Attributes:
        steps: those, and the last good one before them, whose update may have done the damage.
        spike: whether the steps were applied, so that the weights have suffered.
    """

    def __init__(self, reason: str, steps: list[int], spike: bool) -> None:
        super().__init__(reason)
        self.reason, self.steps, self.spike = reason, steps, spike


@dataclass
class _Step:
    """A step that may not be computed yet: `numbers` are this rank's loss sum and the gradient norm."""

    step: int
    items: int
    tokens: int
    numbers: Tensor
    copied: torch.Event | None
    skipped: str = ""


class Watchdog:
    """Judges the steps of a run in order, LAG steps after they were started."""

    def __init__(
        self,
        loop: LoopConfig,
        state: TrainState,
        say: Callable[[str], None],
        note: Callable[[Literal["skipped", "spike"], int, str], None] = lambda kind, step, text: (
            None
        ),
    ) -> None:
        """
        Args:
            say: shows a line. note: records a step, counted from 1, that was skipped or is a spike.
        """
        self._loop, self._state, self._say, self._note = loop, state, say, note
        self._pending: deque[_Step] = deque()

    def record(self, step: int, items: int, tokens: int, loss: Tensor, norm: Tensor) -> None:
        """Add a step; whether it was applied shows when `norm` is read.

        Args:
            items, tokens: of all ranks.
            loss: this rank's sum, on the device. norm: of the gradients of all ranks, on the device.
        """
        numbers = torch.stack((loss.detach().float(), norm.float()))
        host = numbers.to("cpu", non_blocking=numbers.is_cuda)
        copied = torch.cuda.current_stream(loss.device).record_event() if loss.is_cuda else None
        self._pending.append(_Step(step, items, tokens, host, copied))

    def record_skipped(self, step: int, reason: str) -> None:
        """Add a step that was not computed."""
        self._pending.append(_Step(step, 1, 0, torch.zeros(2), None, reason))

    def pending_loss(self, drain: bool = False) -> float | None:
        """This rank's loss sum of the oldest unresolved step, or None: None on all ranks alike.

        Args:
            drain: whether to wait for the latest steps too.
        """
        if len(self._pending) < (1 if drain else LAG):
            return None
        oldest = self._pending[0]
        if oldest.copied is not None:
            oldest.copied.synchronize()
        return float(oldest.numbers[0])

    def resolve(self, loss_sum: float) -> None:
        """Judge the step of `pending_loss`.

        Args:
            loss_sum: its loss, summed over all ranks.

        Raises:
            Trouble: on all ranks alike.
            UserError: too many steps in a row had no label.
        """
        step = self._pending.popleft()
        norm = float(step.numbers[1])
        if not math.isfinite(norm):
            step.skipped = f"gradient norm is {norm}"
        if step.skipped:
            return self._count_skipped(step)
        self._judge_loss(step, loss_sum / step.items)

    def _count_skipped(self, step: _Step) -> None:
        state = self._state
        state.skipped += 1
        state.tokens -= step.tokens
        self._say(f"step {step.step + 1} skipped: {step.skipped}")
        self._note("skipped", step.step + 1, step.skipped)
        state.skipped_row.append(step.step)
        if len(state.skipped_row) >= self._loop.max_skipped_in_a_row:
            row = f"{len(state.skipped_row)} steps in a row were skipped, the last because: "
            if step.skipped == NO_LABEL:
                raise UserError(f"{row}{NO_LABEL}; check the labels; the model is fine")
            self._raise_trouble(row + step.skipped, spike=False)

    def _judge_loss(self, step: _Step, loss: float) -> None:
        state, limit = self._state, self._limit()
        if math.isfinite(loss) and (limit is None or loss <= limit):
            state.skipped_row, state.spike_row, state.last_good = [], [], step.step
            state.losses = [*state.losses[1 - WINDOW :], loss]
            return
        state.spike_row.append(step.step)
        spikes = len(state.spike_row)
        message = f"loss {loss:.3g} at step {step.step + 1} is above {limit or math.inf:.3g}, "
        self._note("spike", step.step + 1, message.removesuffix(", "))
        message += "1 spike" if spikes == 1 else f"{spikes} spikes in a row"
        if spikes >= self._loop.spike_steps:
            self._raise_trouble(message, spike=True)
        if spikes > 1:  # a single one is not worth a line
            self._say(f"{message}; at {self._loop.spike_steps} the run goes back to a checkpoint")

    def _limit(self) -> float | None:
        losses = self._state.losses
        if self._loop.spike_threshold is None or len(losses) < ENOUGH:
            return None
        median = statistics.median(losses)
        spread = 1.4826 * statistics.median(abs(loss - median) for loss in losses)
        return median + max(self._loop.spike_threshold * spread, 0.5 * max(median, 1.0))

    def _raise_trouble(self, reason: str, spike: bool) -> None:
        state = self._state
        steps = sorted(state.skipped_row + state.spike_row)
        if state.last_good is not None:
            steps.insert(0, state.last_good)
        state.skipped_row, state.spike_row = [], []
        raise Trouble(reason, steps, spike)

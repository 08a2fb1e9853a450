"""Whether training still goes well: steps that could not be applied, and losses that jump.

Takes loss and gradient norm of every step, the same on all ranks and in order; raises `Trouble` after
several bad steps in a row. They are read two steps late, so that the host never waits for the device.
What it remembers is in the `TrainState`, so a resumed run decides as the whole one.

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

import torch
from torch import Tensor

from mengya.errors import UserError
from mengya.training.checkpoint.store import TrainState
from mengya.training.config import LoopConfig

WINDOW, ENOUGH = 64, 32  # ordinary losses remembered, and needed before a spike is called one
NO_LABEL = "no labelled token in the whole step"
LATE = 2  # steps: the host reads a loss when the device has long had time to compute it


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


class LossWatch:
    """The judge of a run's steps."""

    def __init__(self, loop: LoopConfig, state: TrainState, say: Callable[[str], None]) -> None:
        self._loop, self._state, self._say = loop, state, say
        self._open: deque[_Step] = deque()

    def done(self, step: int, items: int, tokens: int, loss: Tensor, norm: Tensor) -> None:
        """Note a step; whether it was applied shows when `norm` is read.

        Args:
            items, tokens: of all ranks.
            loss: this rank's sum, on the device. norm: of the gradients of all ranks, on the device.
        """
        numbers = torch.stack((loss.detach().float(), norm.float()))
        host = numbers.to("cpu", non_blocking=numbers.is_cuda)
        copied = torch.cuda.current_stream(loss.device).record_event() if loss.is_cuda else None
        self._open.append(_Step(step, items, tokens, host, copied))

    def skipped(self, step: int, reason: str) -> None:
        """Note a step that was not even computed."""
        self._open.append(_Step(step, 1, 0, torch.zeros(2), None, reason))

    def due(self, all_of_them: bool = False) -> float:
        """This rank's loss sum of the step that `judge` is to hear of next; 0 when none is due."""
        if len(self._open) < (1 if all_of_them else LATE):
            return 0.0
        first = self._open[0]
        if first.copied is not None:
            first.copied.synchronize()
        return float(first.numbers[0])

    def judge(self, loss_sum: float, all_of_them: bool = False) -> bool:
        """Hear the sum over all ranks of what `due` gave; returns whether a step was due.

        Raises:
            Trouble: on all ranks alike.
            UserError: so many steps in a row had nothing to learn.
        """
        if len(self._open) < (1 if all_of_them else LATE):
            return False
        step = self._open.popleft()
        state, loop = self._state, self._loop
        norm = float(step.numbers[1])
        if not math.isfinite(norm):
            step.skipped = f"gradient norm is {norm}"
        if step.skipped:
            state.skipped += 1
            state.tokens -= step.tokens
            self._say(f"step {step.step + 1} skipped: {step.skipped}")
            state.skipped_row.append(step.step)
            if len(state.skipped_row) >= loop.max_skipped_in_a_row:
                row = f"{len(state.skipped_row)} steps in a row were skipped, the last because: "
                if step.skipped == NO_LABEL:
                    raise UserError(f"{row}{NO_LABEL}; look at the data, no weights are at fault")
                self._trouble(row + step.skipped, spike=False)
            return True
        loss = loss_sum / step.items
        limit = self._limit()
        if not math.isfinite(loss) or (limit is not None and loss > limit):
            state.spike_row.append(step.step)
            row = len(state.spike_row)
            told = (
                f"loss {loss:.3g} at step {step.step + 1} is above {limit or math.inf:.3g}, "
                f"the {row}. spike in a row"
            )
            if row >= loop.spike_steps:
                self._trouble(told, spike=True)
            if row > 1:  # a single one is not worth a line
                self._say(f"{told}; at {loop.spike_steps} the run goes back to a checkpoint")
            return True
        state.skipped_row, state.spike_row, state.last_good = [], [], step.step
        state.losses = [*state.losses[1 - WINDOW :], loss]
        return True

    def _limit(self) -> float | None:
        losses = self._state.losses
        if self._loop.spike_threshold is None or len(losses) < ENOUGH:
            return None
        median = statistics.median(losses)
        spread = 1.4826 * statistics.median(abs(loss - median) for loss in losses)
        return median + max(self._loop.spike_threshold * spread, 0.5 * max(median, 1.0))

    def _trouble(self, reason: str, spike: bool) -> None:
        state = self._state
        steps = sorted(state.skipped_row + state.spike_row)
        if state.last_good is not None:
            steps.insert(0, state.last_good)
        state.skipped_row, state.spike_row = [], []
        raise Trouble(reason, steps, spike)

"""Yardsticks measured while a run trains: timed, and without a trace in its random numbers.

Takes a function of a model that gives figures by name (stages/run/yardsticks.py makes it of those of
`mengya evaluate`); gives metrics. Knows none of the yardsticks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import torch

from mengya.models.causal_lm import CausalLM

PREFIX = "yardstick/"  # of their metrics: yardstick/NAME, yardstick/NAME/PART
SHARE = "yardstick_share"
MAX_SHARE = 0.03


class Yardsticks:
    """Measures, and counts the time of it since the run began, which is when this is made.

    Args:
        figures: of a model, by name; leaves the model as it is.
        every: steps between measurements, named in the warning when they take more than MAX_SHARE.
        say: shows a line.
    """

    def __init__(
        self,
        figures: Callable[[CausalLM], Mapping[str, float]],
        every: int,
        say: Callable[[str], None],
    ) -> None:
        self._figures, self._every, self._say = figures, every, say
        self._began = time.perf_counter()
        self._seconds = 0.0
        self._warned = False

    def measure(self, model: CausalLM, step: int, started: float) -> dict[str, float]:
        """The metrics of one measurement.

        Args:
            started: time.perf_counter() before the weights were gathered, where they are sharded.
        """
        device = next(model.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            figures = self._figures(model)
        now = time.perf_counter()
        self._seconds += now - started
        share = self._seconds / (now - self._began)
        shown = ", ".join(
            f"{name} {value:.4f}" for name, value in figures.items() if "/" not in name
        )
        self._say(
            f"step {step} yardsticks: {shown or f'{len(figures)} figures'} ({now - started:.1f} s; "
            f"{share:.1%} of the run so far)"
        )
        if share > MAX_SHARE and not self._warned:
            self._warned = True
            every = math.ceil(self._every * share / MAX_SHARE)
            self._say(
                f"warning: yardsticks take {share:.1%} of the time, more than {MAX_SHARE:.0%}: write "
                f"loop.yardstick_every={every}, or a smaller loop.yardstick_limit"
            )
        metrics = {f"{PREFIX}{name}": value for name, value in figures.items()}
        return metrics | {"yardstick_seconds": now - started, SHARE: share}

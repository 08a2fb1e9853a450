"""One clock for every training loop that is compared: ours, transformers' Trainer, TRL's trainers.

Takes the end of each step and its real tokens; gives median speed over windows of steps, with no
synchronisation inside a window, peak memory after the warm-up, and what the warm-up cost beyond its
steps (compiling). Knows nothing of models.
"""

from __future__ import annotations

import gc
import statistics
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timing:
    """What a case gave: medians over windows.

    Attributes:
        speed: real tokens per second.
        ms: milliseconds per step.
        peak: GiB allocated at most after the warm-up; nan off CUDA.
        compile_s: seconds of the warm-up beyond what its steps take afterwards.
        spread: slowest window over fastest, minus 1.
    """

    speed: float
    ms: float
    peak: float
    compile_s: float
    spread: float


@dataclass
class Clock:
    """Counts steps: `warmup` of them untimed, then `windows` times `steps`.

    A loop calls `begin` before its first step, `count` with the real tokens of every step (a tensor may
    stay on the device) and `step_done` after it, and makes `total` steps.
    """

    device: torch.device
    warmup: int = 6
    steps: int = 8
    windows: int = 5
    _borders: list[float] = field(default_factory=list)
    _tokens: list[Tensor | int] = field(default_factory=list)
    _begun: float = 0.0
    _done: int = 0

    @property
    def total(self) -> int:
        return self.warmup + self.steps * self.windows

    def begin(self) -> None:
        if not self._begun:
            self._begun = self._now()

    def count(self, tokens: Tensor | int) -> None:
        self._tokens.append(tokens)

    def step_done(self) -> None:
        self._done += 1
        if self._done == self.warmup and self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        if self._done >= self.warmup and (self._done - self.warmup) % self.steps == 0:
            self._borders.append(self._now())

    def result(self) -> Timing:
        if self._done != self.total or len(self._tokens) != self.total:
            raise RuntimeError(
                f"the loop made {self._done} steps and counted {len(self._tokens)}, not {self.total}"
            )
        seconds = [b - a for a, b in zip(self._borders, self._borders[1:], strict=False)]
        tokens = [float(t) for t in self._tokens[self.warmup :]]
        speeds = [
            sum(tokens[i * self.steps : (i + 1) * self.steps]) / s for i, s in enumerate(seconds)
        ]
        step = statistics.median(seconds) / self.steps
        cuda = self.device.type == "cuda"
        return Timing(
            speed=statistics.median(speeds),
            ms=step * 1e3,
            peak=torch.cuda.max_memory_allocated() / 2**30 if cuda else float("nan"),
            compile_s=max(0.0, self._borders[0] - self._begun - self.warmup * step),
            spread=max(seconds) / min(seconds) - 1,
        )

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def time_steps(
    step: Callable[[T], None], batches: Iterable[T], tokens: Callable[[T], int], clock: Clock
) -> Timing:
    """Run `clock.total` steps of our own loop."""
    clock.begin()
    for number, batch in enumerate(batches, 1):
        clock.count(tokens(batch))
        step(batch)
        clock.step_done()
        if number == clock.total:
            break
    return clock.result()


def milliseconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Median by events, after three runs to warm up."""
    times = []
    for number in range(repeats + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        if number >= 3:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def kernel_times(work: Callable[[], object], repeats: int = 5) -> list[tuple[str, float, float]]:
    """(kernel, ms in one run, calls in one run) of each, longest first."""
    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(repeats):
            work()
        torch.cuda.synchronize()
    rows = [
        (event.key, event.self_device_time_total / 1e3 / repeats, event.count / repeats)
        for event in profiler.key_averages()
    ]
    return sorted(rows, key=lambda row: -row[1])


def matmul_peak(device: torch.device, size: int = 8192) -> float:
    """FLOP/s of a bf16 product of random matrices [size, size], the median of ten; nan off CUDA."""
    if device.type != "cuda":
        return float("nan")
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(15):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        torch.mm(a, b)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return 2 * size**3 / statistics.median(times[5:]) * 1e3


def attempt(name: str, work: Callable[[], T]) -> T | None:
    """The work's result, or None with the end of its traceback printed; memory is given back."""
    try:
        return work()
    except Exception:
        print(f"--- {name} failed:")
        print("".join(traceback.format_exc().splitlines(keepends=True)[-12:]), flush=True)
        return None
    finally:
        gc.collect()
        torch._dynamo.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def line(name: str, timing: Timing, note: str = "") -> str:
    """A row of the tables, under `HEAD`."""
    return (
        f"{name:50} {timing.speed:12,.0f} {timing.ms:9.1f} {timing.peak:8.1f} "
        f"{timing.compile_s:9.1f} {timing.spread:7.1%}  {note}"
    )


HEAD = f"{'':50} {'real tok/s':>12} {'ms/step':>9} {'GiB':>8} {'compile s':>9} {'spread':>7}"

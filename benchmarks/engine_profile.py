"""Where the time of the batch engine's steps goes: on the host and, by kernel, on the device.

Takes an engine; prints. What one step costs is measured first without a profiler, because both slow
down what they watch. `generation_speed.py --profile 64 256` calls this.
"""

from __future__ import annotations

import cProfile
import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from mengya.generation.batch.engine import BatchEngine, Request
from mengya.generation.sampling import SamplingParams

_STEPS = 60
_WATCHED = 20  # steps, or prompts, under torch's profiler


def print_profile(engine: BatchEngine, prompt: tuple[int, ...]) -> None:
    """Of steps that only decode, then of those that compute a prompt as well.

    Args:
        engine: all of its requests but one are decoded, and continue for some hundreds of steps.
        prompt: of the request that comes meanwhile.
    """
    streams = engine.stats.running
    took = [_seconds(engine.step) for _ in range(_STEPS)]
    print(f"\n{streams} streams, decoding only: {_milliseconds(took)} a step")
    host = cProfile.Profile()
    host.enable()
    for _ in range(_STEPS):
        engine.step()
    host.disable()
    _print_host(host, _STEPS)
    _print_device(engine.step, _WATCHED)

    def first_token() -> None:
        greedy = SamplingParams(max_new_tokens=1, temperature=0)
        number = engine.add(Request(prompt, greedy))
        while all(event.request_id != number for event in engine.step()):
            pass

    took = [_seconds(first_token) for _ in range(_WATCHED)]
    print(
        f"\n{streams} streams and a prompt of {len(prompt)}: first token after {_milliseconds(took)}"
    )
    _print_device(first_token, _WATCHED // 4)


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _milliseconds(seconds: list[float]) -> str:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"median {1000 * middle:.2f} ms ({1000 * low:.2f} to {1000 * high:.2f})"


def _print_host(host: cProfile.Profile, steps: int) -> None:
    """The 25 functions in which most time passes, with what they call; microseconds a step."""
    print("host, under cProfile; waiting for the device is Event.synchronize")
    print(f"{'us a step':>10} {'own':>8} {'calls':>7}  function")
    largest = sorted(host.getstats(), key=lambda entry: -entry.totaltime)[:25]
    for entry in largest:
        name = entry.code
        if not isinstance(name, str):
            file = name.co_filename.rpartition("/")[2]
            name = f"{name.co_name} ({file}:{name.co_firstlineno})"
        print(
            f"{1e6 * entry.totaltime / steps:10,.0f} {1e6 * entry.inlinetime / steps:8,.0f} "
            f"{entry.callcount / steps:7,.1f}  {name}"
        )


def _print_device(action: Callable[[], object], times: int) -> None:
    """The 20 kernels that take most, and what the host asks of CUDA; on a CPU the 20 operations."""
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(times):
            action()
        if on_gpu:
            torch.cuda.synchronize()
    averages = profiler.key_averages()
    kernels = [e for e in averages if e.device_type.name == "CUDA"]
    if on_gpu:
        found = [(e.self_device_time_total, e.count, e.key) for e in kernels]
        asked = [
            (e.self_cpu_time_total, e.count, e.key)
            for e in averages
            if e.device_type.name == "CPU" and e.key.startswith(("cuda", "cuL", "cuM", "cuG"))
        ]
        _print_largest("CUDA calls of the host", asked, times, 10)
    else:
        found = [(e.self_cpu_time_total, e.count, e.key) for e in averages]
    _print_largest("kernels" if on_gpu else "operations", found, times, 20)


def _print_largest(what: str, found: list[tuple[float, int, str]], times: int, most: int) -> None:
    total, count = sum(f[0] for f in found), sum(f[1] for f in found)
    print(f"{what}: {total / times:,.0f} us and {count / times:,.0f} of them each time")
    print(f"{'us':>10} {'share':>6} {'count':>7}  name")
    for spent, calls, name in sorted(found, reverse=True)[:most]:
        print(
            f"{spent / times:10,.1f} {spent / max(total, 1e-9):6.1%} {calls / times:7,.1f}  {name[:90]}"
        )

"""What each of our own kernels gains in a training step: tokens/s with it and without it, on one GPU.

A step is the Trainer's (our_step.py): packed rows, bf16, Muon, compiled layer by layer. A case is that
step with one kernel taken away (its predicate says no, or a function in PyTorch takes its place) and
runs in a process of its own. The cases of a shape compile at the same time; then they are timed one
after another, the order reversed in every repeat, so that a card that slows down does so for all. A
ratio is the median over repeats of `with` over `without`.

Predicates are counted when they are evaluated, by the compiler or at run time: the table shows both
answers of the kernel's own predicate in either case, and so proves that it was on and off.

experts          Triton kernels of the experts; without: torch's grouped product over sorted rows
qkv              norm and rotation of the merged q/k/v product; without: three products, the compiler
swiglu           SwiGLU of the merged gate/up product; without: the compiler
attention        attention of packed documents; without: FlashAttention 2 by torch
nll              cross entropy of a chunk of logits; without: eager PyTorch
nll-compiled     the same; without: the same PyTorch through the compiler
fp8              feed-forward layers in fp8, which is a setting; without: bf16, as all the others
fp8-kernels      the Triton kernels of those layers; without: fp8, the compiler
noise            the same case twice: what a ratio is worth

usage: python benchmarks/kernel_gains.py [--shapes 64m 198m-moe 12x256-moe 159m] [--kernels ...]
       [--repeats 4] [--steps 20] [--minutes 8] [--device cpu: tiny, only to see that all of it runs]
With $OUT in the environment: also JSON lines, in $OUT/kernel_gains.jsonl.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any

import torch
from our_step import ours, real_tokens, steps_of
from pretraining_data import RowList, documents, packed_rows
from shapes import SHAPES, config_of, rows_of
from timing import Clock, Timing, time_steps
from torch._dynamo.comptime import comptime

from mengya.models.config.model import ModelConfig
from mengya.runtime.device import DeviceName, init_device, pick_autocast_dtype
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution
from mengya.training.optim.config import OptimizerConfig

# kernel -> (module in which the name is looked up, name): what takes it away. When files move, these
# two dicts are all there is to change.
KERNELS: dict[str, list[tuple[str, str]]] = {
    "experts": [("mengya.kernels.experts.op", "is_supported")],
    "qkv": [("mengya.kernels.qkv", "is_supported")],
    "swiglu": [("mengya.kernels.swiglu", "is_supported")],
    "attention": [("mengya.kernels.attention.document", "is_supported_by_triton")],
    "nll": [("mengya.kernels.cross_entropy", "_has_kernels")],
    "nll-compiled": [
        ("mengya.kernels.cross_entropy", "_has_kernels"),
        ("mengya.kernels.cross_entropy", "chunk_nll"),
    ],
    "fp8": [("mengya.models.feed_forward", "fp8_swiglu")],
    "fp8-kernels": [
        ("mengya.kernels.fp8.swiglu", "quantize"),
        ("mengya.kernels.fp8.swiglu", "swiglu"),
        ("mengya.kernels.fp8.swiglu", "swiglu_backward"),
    ],
    "noise": [],
}
# Names that are no predicates -> what stands in their place, made of the module and the function.
INSTEAD: dict[tuple[str, str], Callable[[Any, Any], Any]] = {
    ("mengya.kernels.cross_entropy", "chunk_nll"): lambda _, f: torch.compile(f, dynamic=False),
    ("mengya.models.feed_forward", "fp8_swiglu"): lambda _, f: f,  # off by not asking for it
    ("mengya.kernels.fp8.swiglu", "quantize"): lambda module, _: module.quantize_plain,
    ("mengya.kernels.fp8.swiglu", "swiglu"): lambda module, _: module.swiglu_plain,
    ("mengya.kernels.fp8.swiglu", "swiglu_backward"): lambda module, _: (
        module.swiglu_backward_plain
    ),
}
SPAWN = multiprocessing.get_context("spawn")
ALL, FP8 = "all", "all + fp8"
WARMUP, UNTIMED = 6, 3  # steps before the first window, and before each later one


@dataclass(frozen=True, slots=True)
class Setup:
    """What all cases of a shape share."""

    shape: str
    device: DeviceName
    rows: int
    size: int
    steps: int
    compiled: bool


@dataclass
class Result:
    """Of one case.

    Attributes:
        speeds: real tokens per second of each repeat.
        calls: "name True", "name False" or "name called" -> how often.
        error: end of a traceback; empty where all went well.
    """

    speeds: list[float] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    peak: float = float("nan")
    compile_s: float = float("nan")
    error: str = ""


def cases_of(kernel: str) -> tuple[str, str]:
    """(case with the kernel, case without it)."""
    if kernel == "noise":
        return ALL, "all, again"
    if kernel == "fp8":
        return FP8, ALL
    return (FP8 if kernel == "fp8-kernels" else ALL), f"no {kernel}"


def meets(kernel: str, config: ModelConfig) -> bool:
    """Whether a step of this model can come by the kernel."""
    if kernel == "experts":
        return bool(config.num_experts)
    if kernel in ("swiglu", "fp8", "fp8-kernels"):
        return not config.num_experts or bool(config.n_shared_experts)
    return True


def count(name: str, calls: Counter[str], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, counting its answers; also where the compiler traces it, once for each trace."""

    def yes(_: object = None) -> None:
        calls[f"{name} True"] += 1

    def no(_: object = None) -> None:
        calls[f"{name} False"] += 1

    def called(_: object = None) -> None:
        calls[f"{name} called"] += 1

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        answer = function(*args, **kwargs)
        if answer is True:
            comptime(yes, yes)
        elif answer is False:
            comptime(no, no)
        else:
            comptime(called, called)
        return answer

    return counted


def switch(case: str, calls: Counter[str]) -> None:
    """Take away what the case is without, in this process, and count all that is switched."""
    without = KERNELS.get(case.removeprefix("no "), [])
    for module_name, name in {place for places in KERNELS.values() for place in places}:
        module = importlib.import_module(module_name)
        function = getattr(module, name)
        if (module_name, name) in without:
            make = INSTEAD.get((module_name, name), lambda *_: lambda *args, **kwargs: False)
            function = make(module, function)
        setattr(module, name, count(f"{module_name.rpartition('.')[2]}.{name}", calls, function))


def work(case: str, setup: Setup, pipe: Connection, compiling: Semaphore) -> None:
    """A process of one case: builds and warms up, then times a window for each True it is sent."""
    try:
        calls: Counter[str] = Counter()
        switch(case, calls)
        device = init_device(setup.device)
        cuda = device.type == "cuda"
        strategy = SingleDevice(Execution(device, pick_autocast_dtype("auto", device)))
        config = config_of(setup.shape, setup.size)
        torch.manual_seed(0)
        docs = documents(setup.rows * 32, setup.size, config.vocab_size)
        batches = steps_of(RowList(packed_rows(docs, setup.rows * 16, setup.size)), setup.rows)
        step = ours(
            config, strategy, compiled=setup.compiled, fp8=case in (FP8, "no fp8-kernels"),
            optimizer=OptimizerConfig(name="muon", lr=1e-4),  # low, so that no loss can diverge
        )  # fmt: skip

        def window(untimed: int) -> Timing:
            timing = time_steps(
                step, batches, real_tokens, Clock(device, untimed, setup.steps, windows=1)
            )
            if cuda:  # activations go back, or the cases would not fit on the card together
                torch.cuda.empty_cache()
            return timing

        with compiling:
            warm = window(WARMUP if cuda else 1)
        pipe.send((warm.peak, warm.compile_s, dict(calls)))
        while pipe.recv():
            pipe.send(window(UNTIMED if cuda else 1).speed)
    except Exception:
        pipe.send("".join(traceback.format_exc().splitlines(keepends=True)[-8:]))


class Case:
    """One case's process, seen from the one that compares."""

    def __init__(self, name: str, setup: Setup, compiling: Semaphore) -> None:
        self.name, self.result = name, Result()
        self._pipe, other = SPAWN.Pipe()
        self._process = SPAWN.Process(target=work, args=(name, setup, other, compiling))
        self._process.start()
        other.close()  # so that the end of the process is the end of the pipe

    def wait_ready(self, deadline: float) -> None:
        answer = self._receive(deadline)
        if answer is not None:
            self.result.peak, self.result.compile_s, self.result.calls = answer

    def measure(self, deadline: float) -> None:
        if self.result.error:
            return
        self._pipe.send(True)
        speed = self._receive(deadline)
        if speed is not None:
            self.result.speeds.append(speed)

    def release(self) -> None:
        """Let the process end by itself."""
        with suppress(OSError):  # it has ended
            self._pipe.send(False)

    def stop(self) -> None:
        self._process.join(timeout=0 if self.result.error else 5)
        self._process.kill()  # it holds nothing that must be written
        self._process.join()

    def _receive(self, deadline: float) -> Any:
        """What the process sends; None, with the reason in `result.error`, where it failed."""
        answer: Any = "out of time"
        try:
            if self._pipe.poll(max(deadline - time.monotonic(), 0.0)):
                answer = self._pipe.recv()
        except EOFError:
            answer = "the process ended"
        if not isinstance(answer, str):
            return answer
        self.result.error = answer
        print(f"--- {self.name} failed:\n{answer}", flush=True)
        self.release()
        return None


def compare(
    setup: Setup, kernels: list[str], repeats: int, parallel: int, deadline: float
) -> dict[str, Result]:
    """All cases of one shape: at most `parallel` compile at a time, then they are timed in turn."""
    names = list(dict.fromkeys([ALL, *(name for k in kernels for name in reversed(cases_of(k)))]))
    began = time.monotonic()
    compiling = SPAWN.Semaphore(parallel)
    cases: list[Case] = []
    try:
        for name in names:
            cases.append(Case(name, setup, compiling))
        for case in cases:
            case.wait_ready(deadline)
        print(f"{setup.shape}: {len(cases)} cases ready in {time.monotonic() - began:.0f} s")
        for repeat in range(repeats):
            if time.monotonic() > deadline:
                break
            for case in cases if repeat % 2 == 0 else reversed(cases):
                case.measure(deadline)
        print(f"{setup.shape}: done after {time.monotonic() - began:.0f} s", flush=True)
    finally:
        for case in cases:
            case.release()
        for case in cases:
            case.stop()
    return {case.name: case.result for case in cases}


def rows_of_table(shape: str, kernels: list[str], results: dict[str, Result]) -> Iterator[str]:
    """Lines of the Markdown table, one for each kernel."""
    for kernel in kernels:
        with_it, without = (results[name] for name in cases_of(kernel))
        if not with_it.speeds or not without.speeds:
            yield f"| {shape} | {kernel} | failed | | | | | |"
            continue
        ratios = [a / b for a, b in zip(with_it.speeds, without.speeds, strict=False)]
        yield (
            f"| {shape} | {kernel} | {statistics.median(with_it.speeds):,.0f} "
            f"| {statistics.median(without.speeds):,.0f} | {statistics.median(ratios):.3f} "
            f"| {min(ratios):.3f} to {max(ratios):.3f} "
            f"| {with_it.peak:.1f} and {without.peak:.1f} "
            f"| {answers(kernel, with_it)}; {answers(kernel, without)} |"
        )


def answers(kernel: str, result: Result) -> str:
    """How often what switches the kernel said what."""
    names = {f"{module.rpartition('.')[2]}.{name}" for module, name in KERNELS[kernel]}
    said = [f"{key.rpartition('.')[2]} {n}x" for key, n in sorted(result.calls.items())
            if key.rpartition(" ")[0] in names]  # fmt: skip
    return ", ".join(said) or "never asked"


HEAD = (
    "| shape | kernel | tokens/s with | without | ratio | of repeats | peak GiB | with; without |\n"
    "|---|---|---:|---:|---:|---|---:|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", nargs="+", choices=SHAPES)
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="timed in one repeat")
    parser.add_argument("--minutes", type=float, default=8.0, help="of everything together")
    parser.add_argument(
        "--parallel",
        type=int,
        default=5,
        help="cases that compile at a time: all have their activations on the card",
    )
    parser.add_argument("--rows", type=int, help="of a batch: 64; 16 with a vocabulary of 151,669")
    parser.add_argument("--size", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--compiled", action="store_true", help="also on a CPU")
    options = parser.parse_args()
    cpu = options.device == "cpu"
    deadline = time.monotonic() + 60 * options.minutes
    out = Path(os.environ["OUT"]) / "kernel_gains.jsonl" if "OUT" in os.environ else None
    default = ["tiny", "tiny-moe"] if cpu else ["64m", "198m-moe", "12x256-moe", "159m"]
    table = [HEAD]
    with tempfile.TemporaryDirectory() as cache:  # one for all: most of two cases is the same code
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", cache)
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")  # many processes at a time
        for shape in options.shapes or default:
            if time.monotonic() > deadline:
                print(f"{shape}: no time left", flush=True)
                continue
            setup = Setup(
                shape, options.device, options.rows or (2 if cpu else rows_of(shape)),
                options.size, options.steps, options.compiled or not cpu,
            )  # fmt: skip
            config = config_of(shape, setup.size)
            kernels = [k for k in options.kernels if meets(k, config)]
            kernels = [k for k in kernels if not (cpu and k.startswith("fp8"))]  # CUDA alone has it
            results = compare(setup, kernels, options.repeats, options.parallel, deadline)
            for name, result in results.items():
                calls = ", ".join(f"{key} {n}x" for key, n in sorted(result.calls.items()))
                speed = statistics.median(result.speeds) if result.speeds else float("nan")
                print(
                    f"  {name:18} {speed:12,.0f} tokens/s, warm {result.compile_s:.0f} s; {calls}"
                )
                if out is not None:
                    line = {
                        **asdict(setup),
                        "case": name,
                        **asdict(result),
                        "torch": torch.__version__,
                    }
                    with out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
            lines = list(rows_of_table(shape, kernels, results))
            table += lines
            print("\n".join([HEAD, *lines]), flush=True)
    where = "cpu" if cpu else torch.cuda.get_device_name()
    print(
        f"\n{where}, torch {torch.__version__}, Muon, {options.repeats} repeats of {options.steps} steps"
    )
    print("\n".join(table))


if __name__ == "__main__":
    main()

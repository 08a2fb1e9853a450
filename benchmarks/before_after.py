"""Speeds of two checkouts on one device in one run: training steps and the engine, measured alternately.

Each case runs in one process for each tree, with the tree's own `src` and `benchmarks` on its path: it
compiles once and then waits. The parent asks them in turn (before, after, before, after, ...), so that a
card that slows down does so for both. A ratio is the median over repeats of after over before.

64m, 198m-moe, ...  a training step of our_step.py (`--shapes`, see shapes.py): packed rows, Muon, compiled;
                    NAME-fp8: with feed-forward layers in fp8
engine NAME         BatchEngine of generation_speed.py, random weights, `--streams` requests at once
                    (`--engine`, with or without names)

usage: python benchmarks/before_after.py --before COMMIT_OR_FOLDER
           [--shapes 64m 64m-fp8 198m-moe 159m] [--engine [64m 198m-moe]]
           [--device cpu: only to see that it runs]
A folder holds `src` and `benchmarks`, as `git archive COMMIT src benchmarks | tar -x -C FOLDER` makes it;
a commit is unpacked that way. With $OUT in the environment: also JSON lines, in $OUT/before_after.jsonl.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import json
import os
import random
import select
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch

ROOT = Path(__file__).resolve().parent.parent
ENGINE = "engine "
WARMUP, UNTIMED = 6, 3  # steps before the first window, and before each later one


class Job(TypedDict):
    """What a worker measures.

    Attributes:
        config: arguments of ModelConfig.
        rows: of a batch; in the engine, requests at once.
        size: tokens of a row; in the engine, of the longest prompt and of the longest completion.
        steps: of a window.
    """

    name: str
    config: dict[str, Any]
    fp8: bool
    engine: bool
    rows: int
    size: int
    steps: int
    device: str


# The worker: runs in either tree, so it names only what both have.


def worker(job: Job) -> None:
    """Report when ready, then measure once for each line of input; answers are JSON lines."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        measure, peak = (engine_of if job["engine"] else training_of)(job)
        answer(peak=peak)
        for _ in sys.stdin:
            answer(speed=measure())
    except Exception:
        answer(error="".join(traceback.format_exc().splitlines(keepends=True)[-8:]))


def training_of(job: Job) -> tuple[Callable[[], float], float]:
    """(gives real tokens per second of a window, peak GiB of a step)."""
    our_step, timing, data = (
        importlib.import_module(name) for name in ("our_step", "timing", "pretraining_data")
    )
    device = device_of(job)
    cuda = device.type == "cuda"
    place: list[Any] = [device, torch.bfloat16 if cuda else None]
    if importlib.util.find_spec(
        "mengya.training.execution"
    ):  # an older tree takes the two as they are
        place = [importlib.import_module("mengya.training.execution").Execution(*place)]
    config = our_step.ModelConfig(**job["config"])
    torch.manual_seed(0)
    docs = data.documents(job["rows"] * 32, job["size"], config.vocab_size)
    rows = data.RowList(data.packed_rows(docs, job["rows"] * 16, job["size"]))
    batches = our_step.steps_of(rows, job["rows"])
    step = our_step.ours(
        config, our_step.SingleDevice(*place), compiled=cuda, fp8=job["fp8"],
        optimizer=our_step.OptimizerConfig(name="muon", lr=1e-4),  # low, so that no loss can diverge
    )  # fmt: skip

    def window(untimed: int) -> Any:
        clock = timing.Clock(device, untimed, job["steps"], 1)
        result = timing.time_steps(step, batches, our_step.real_tokens, clock)
        if cuda:  # activations go back, or the workers would not fit on the card together
            torch.cuda.empty_cache()
        return result

    peak = window(WARMUP if cuda else 1).peak
    return lambda: window(UNTIMED if cuda else 1).speed, peak


def engine_of(job: Job) -> tuple[Callable[[], float], float]:
    """(gives new tokens per second of a run of all requests, peak GiB of the warm-up)."""
    speed = importlib.import_module("generation_speed")
    device = device_of(job)
    cuda = device.type == "cuda"
    config = speed.ModelConfig(**job["config"])
    torch.manual_seed(0)
    model = speed.CausalLM(config).to(device, torch.bfloat16 if cuda else torch.float32).eval()
    rng, shortest = random.Random(0), max(1, job["size"] // 10)
    asked = [
        (
            [rng.randrange(config.vocab_size) for _ in range(rng.randint(shortest, job["size"]))],
            rng.randint(shortest, job["size"]),
        )
        for _ in range(job["rows"])
    ]
    new = sum(count for _, count in asked)
    way, _ = speed.warmed_up(lambda: speed.engine_way(model, job["rows"], job["rows"]), asked)

    def run() -> float:
        made, seconds = way(asked)
        assert sum(map(len, made)) == new
        return new / seconds

    run()  # every number of streams and pages has been met
    return run, torch.cuda.max_memory_allocated() / 2**30 if cuda else float("nan")


def device_of(job: Job) -> torch.device:
    return torch.device("cuda", 0) if job["device"] == "cuda" else torch.device("cpu")


# The parent.


@dataclass
class Result:
    """Of one case in one tree; `error` is empty where all went well."""

    speeds: list[float] = field(default_factory=list)
    peak: float = float("nan")
    error: str = ""


class Side:
    """One tree's process of a case, seen from the parent."""

    def __init__(self, tree: Path, job: Job) -> None:
        self.result, self._label = Result(), f"{job['name']} in {tree}"
        paths = os.pathsep.join(
            [str(tree / "src"), str(tree / "benchmarks"), os.environ.get("PYTHONPATH", "")]
        )
        # -P: this file's folder is not on the path, or its neighbours would come before the tree's.
        command = [sys.executable, "-P", __file__, "--worker", json.dumps(job)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip

    def wait_ready(self, deadline: float) -> None:
        if (answer := self._receive(deadline)) is not None:
            self.result.peak = answer["peak"]

    def measure(self, deadline: float) -> None:
        if self.result.error or self._process.stdin is None:
            return
        self._process.stdin.write("measure\n")
        if (answer := self._receive(deadline)) is not None:
            self.result.speeds.append(answer["speed"])

    def stop(self) -> None:
        self._process.kill()  # it holds nothing that must be written
        self._process.wait()

    def _receive(self, deadline: float) -> dict[str, Any] | None:
        """The next answer; None, with the reason in `result.error`, where there is none."""
        stdout = self._process.stdout
        assert stdout is not None
        line, error = "", "out of time"
        if select.select([stdout], [], [], max(deadline - time.monotonic(), 0.0))[0]:
            line, error = stdout.readline(), "the process ended"
        answer: dict[str, Any] = json.loads(line) if line else {"error": error}
        if "error" not in answer:
            return answer
        self.result.error = answer["error"]
        print(f"--- {self._label} failed:\n{answer['error']}", flush=True)
        return None


def compare(
    trees: tuple[Path, Path], jobs: list[Job], repeats: int, deadline: float
) -> Iterator[tuple[str, Result, Result]]:
    """(case, before, after): all of them get ready at the same time, then each pair is timed alone."""
    began = time.monotonic()
    pairs = [(job["name"], [Side(tree, job) for tree in trees]) for job in jobs]
    try:
        for _, pair in pairs:
            for side in pair:
                side.wait_ready(deadline)
        names = ", ".join(name for name, _ in pairs)
        print(f"{names}: ready after {time.monotonic() - began:.0f} s", flush=True)
        for name, pair in pairs:
            for _ in range(repeats):
                for side in pair:
                    side.measure(deadline)
            yield name, pair[0].result, pair[1].result
    finally:
        for _, pair in pairs:
            for side in pair:
                side.stop()


HEAD = (
    "| case | tokens/s before | after | after / before | of repeats | GiB before and after |\n"
    "|---|---:|---:|---:|---|---|"
)


def table_row(name: str, before: Result, after: Result) -> str:
    ratios = [b / a for a, b in zip(before.speeds, after.speeds, strict=False)]
    if not ratios:
        return f"| {name} | failed | | | | |"
    return (
        f"| {name} | {statistics.median(before.speeds):,.0f} "
        f"| {statistics.median(after.speeds):,.0f} | {statistics.median(ratios):.3f} "
        f"| {min(ratios):.3f} to {max(ratios):.3f} | {before.peak:.1f} and {after.peak:.1f} |"
    )


def jobs_of(options: argparse.Namespace) -> list[Job]:
    shapes = importlib.import_module("shapes")  # here: a worker has its own tree's
    cpu = options.device == "cpu"
    jobs: list[Job] = []

    def add(name: str, shape: str, rows: int, size: int, context: int, steps: int) -> None:
        config = {
            **shapes.SHAPES[shape], "max_position_embeddings": context,
            "vocab_size": shapes.config_of(shape, context).vocab_size,
        }  # fmt: skip
        jobs.append(
            Job(
                name=name, config=config, fp8=name.endswith("-fp8"), rows=rows, size=size, steps=steps,
                engine=name.startswith(ENGINE), device=options.device,
            )
        )  # fmt: skip

    for name in options.shapes:
        shape = name.removesuffix("-fp8")
        size = 64 if cpu else 1024
        add(
            name,
            shape,
            2 if cpu else shapes.rows_of(shape),
            size,
            size,
            1 if cpu else options.steps,
        )
    engines = options.engine or (["tiny-moe"] if cpu else ["64m", "198m-moe"])
    for shape in engines if options.engine is not None else ():
        streams, longest = (4, 20) if cpu else (options.streams, 1024)
        add(ENGINE + shape, shape, streams, longest, max(2048, 2 * longest), 1)
    return jobs


def unpack(before: str, folder: Path) -> Path:
    """The tree of a folder or of a commit."""
    if (tree := Path(before).resolve()).joinpath("src", "mengya").is_dir():
        return tree
    command = ["git", "archive", before, "src", "benchmarks"]
    archive = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--before", required=True, help="a commit, or a folder with src and benchmarks"
    )
    parser.add_argument("--shapes", nargs="*", default=[], help="of shapes.py; NAME-fp8: in fp8")
    parser.add_argument("--engine", nargs="*", help="shapes; default: 64m 198m-moe")
    parser.add_argument("--streams", type=int, default=256, help="of the engine")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="timed in one repeat")
    parser.add_argument("--together", type=int, default=3, help="cases that get ready at a time")
    parser.add_argument("--minutes", type=float, default=8.0, help="of everything together")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    out = Path(os.environ["OUT"]) / "before_after.jsonl" if "OUT" in os.environ else None
    jobs, rows = jobs_of(options), [HEAD]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(scratch) / "inductor"))
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "3")  # several processes at a time
        trees = (unpack(options.before, Path(scratch) / "before"), ROOT)
        for start in range(0, len(jobs), options.together):
            if time.monotonic() > deadline:
                print("no time left", flush=True)
                break
            group = jobs[start : start + options.together]
            for name, before, after in compare(trees, group, options.repeats, deadline):
                rows.append(table_row(name, before, after))
                print(rows[-1], flush=True)
                if out is not None:
                    with out.open("a", encoding="utf-8") as file:
                        values = {"case": name, "before": asdict(before), "after": asdict(after)}
                        file.write(json.dumps(values) + "\n")
    where = "cpu" if options.device == "cpu" else torch.cuda.get_device_name()
    print(f"\n{where}, torch {torch.__version__}, Muon, {options.repeats} repeats")
    print("\n".join(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(json.loads(sys.argv[2]))
    else:
        main()

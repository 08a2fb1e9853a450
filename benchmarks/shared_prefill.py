"""Short requests next to a long prompt, before and after a change: their first tokens, and all of it.

A long prompt comes, and after each of its first steps a short request; `--streams` others are decoded all
the while. Nothing is found in the prefix cache. Each tree runs in a process of its own; they take turns, so
that a busy moment of the machine hits both. Ratios are medians over the repeats of after over before.

usage: python benchmarks/shared_prefill.py --before COMMIT_OR_FOLDER [--shape 26m] [--long 1500] [--short 24]
           [--shorts 8] [--new 8] [--streams 0] [--repeats 5] [--device cpu] [--cpu-time]
on a busy machine (some 30 s of one core):
       OMP_NUM_THREADS=1 python benchmarks/shared_prefill.py --before main --long 1000 --repeats 3 --cpu-time
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import shapes
import torch
from before_after import ROOT, unpack

from mengya.generation.batch.engine import BatchEngine, EngineConfig, Request
from mengya.generation.sampling import SamplingParams
from mengya.models.causal_lm import CausalLM

NAMES = {
    "short": "first token of a short request (median)",
    "slowest": "of the slowest of them",
    "long": "of the long prompt",
    "all": "until all are done",
}


def worker(options: argparse.Namespace) -> None:
    """One JSON line of milliseconds, by the keys of `NAMES`, for each line of stdin."""
    config = shapes.config_of(options.shape, options.long + options.new + 600)
    torch.manual_seed(0)
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    model = CausalLM(config).to(options.device, dtype).eval()
    engine = BatchEngine(model, EngineConfig(prefix_reuse=False))
    measure(engine, options)  # every number of rows has been met
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure(engine, options)), flush=True)


def measure(engine: BatchEngine, options: argparse.Namespace) -> dict[str, float]:
    clock = time.process_time if options.cpu_time else time.perf_counter

    def add(length: int, new: int) -> int:
        prompt = tuple(rng.randrange(6400) for _ in range(length))
        return engine.add(Request(prompt, SamplingParams(max_new_tokens=new, temperature=0)))

    rng = random.Random(0)
    streams = [add(8, 500) for _ in range(options.streams)]
    for _ in range(2 * len(streams)):
        engine.step()
    began = clock()
    came, first, left = (
        {add(options.long, options.new): began},
        dict[int, float](),
        1 + options.shorts,
    )
    while left:
        for event in engine.step():
            first.setdefault(event.request_id, clock())
            left -= event.finish is not None and event.request_id in came
        if len(came) <= options.shorts:
            came[add(options.short, options.new)] = clock()
    ended = clock()
    for number in streams:
        engine.cancel(number)
    while engine.has_work:
        engine.step()
    long, *shorts = (first[number] - arrived for number, arrived in came.items())
    found = {"short": statistics.median(shorts), "slowest": max(shorts), "long": long}
    return {name: 1000 * value for name, value in {**found, "all": ended - began}.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", help="a commit, or a folder with src and benchmarks")
    parser.add_argument("--shape", choices=shapes.SHAPES, default="26m")
    parser.add_argument("--long", type=int, default=1500, help="tokens of the long prompt")
    parser.add_argument("--short", type=int, default=24)
    parser.add_argument("--shorts", type=int, default=8, help="how many short requests")
    parser.add_argument("--new", type=int, default=8, help="new tokens of each")
    parser.add_argument("--streams", type=int, default=0, help="others that are decoded meanwhile")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="of the process; for a busy machine, with one thread",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    if options.before is None:
        return worker(options)
    with tempfile.TemporaryDirectory() as scratch:
        trees = (unpack(options.before, Path(scratch)), ROOT)
        before, after = zip(*turns(trees, options.repeats), strict=True)
    clock = "CPU time" if options.cpu_time else "wall time"
    print(
        f"{options.device}, {torch.get_num_threads()} threads, torch {torch.__version__}; ms, {clock}"
    )
    print("| | before | after | after / before | of repeats |\n|---|---:|---:|---:|---|")
    for key, name in NAMES.items():
        pairs = [(b[key], a[key]) for b, a in zip(before, after, strict=True)]
        ratios = [a / b for b, a in pairs]
        medians = [statistics.median(values) for values in zip(*pairs, strict=True)]
        print(
            f"| {name} | {medians[0]:,.0f} | {medians[1]:,.0f} | {statistics.median(ratios):.2f} "
            f"| {min(ratios):.2f} to {max(ratios):.2f} |"
        )


def turns(trees: tuple[Path, Path], repeats: int) -> Iterator[list[dict[str, float]]]:
    """What each tree measured, repeat by repeat."""
    at = sys.argv.index("--before")
    arguments = [*sys.argv[1:at], *sys.argv[at + 2 :]]
    processes = [
        subprocess.Popen(
            # -P: this file's folder is not on the path, or its neighbours would come before the tree's.
            [sys.executable, "-P", __file__, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tree / "src"), str(ROOT / "benchmarks")])},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        for tree in trees
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for _ in range(repeats):
            found = []
            for process in processes:
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write("measure\n")
                found.append(json.loads(process.stdout.readline()))
            yield found
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()

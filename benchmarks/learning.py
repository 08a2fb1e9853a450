"""How many tokens Muon needs for AdamW's held-out loss: a search, then the best of each, three seeds.

Real text in its real order, packed and compiled as `mengya pretrain` does it. Every run's schedule is
its own and ends at its last token, so a run is compared with a run, never with a point of a longer one.
One JSONL file a run; a finished one is not trained again.

usage: mengya tokenizer recipes/zh-26m/tokenizer.yaml sources=TEXT out=DATA/tokenizer
       mengya prepare recipes/zh-26m/prepare-text.yaml sources=TEXT tokenizer=DATA/tokenizer out=DATA/text
       for i in 0 1; do python benchmarks/learning.py --data DATA/text --out OUT --worker $i/2 \
           --limit-s 540 & done; wait
       python benchmarks/learning.py --out OUT --report docs/pictures/learning.svg
       python benchmarks/learning.py --data DATA/text --out OUT --shapes 64m --limit-s 3000 \
           --box-minutes 10 --optimizer '{name: normuon, lr: 4e-3, weight_decay: 0.3}'
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from learning_lab import Lab, OutOfTime
from learning_plan import ADAMW, MUON, Run, final_runs, search_runs, share_of, width_runs
from learning_report import best_run, read_results, report
from pydantic import ValidationError
from shapes import SHAPES

from mengya.training.optim.config import OptimizerConfig

COST = {"tiny": 1.0, "26m": 1.0, "64m": 1.6}  # seconds per token, relative


def finish(lab: Lab, run: Run) -> None:
    """Train one run into its file, unless it is there already."""
    path = lab.out / f"{run.name}.jsonl"
    if run.name in {r.run.name for r in read_results(lab.out)}:
        return
    lab.check_time(run)
    device = lab.strategy.device
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    with path.open("w", encoding="utf-8") as file:
        header = {"run": asdict(run), "machine": machine, "torch": torch.__version__}
        file.write(json.dumps(header | {"rows": lab.rows, "size": lab.size}) + "\n")
        line: dict[str, Any] = {}
        for line in lab.train(run):
            file.write(json.dumps(line) + "\n")
            file.flush()
        file.write(json.dumps({"final": True}) + "\n")
    print(f"{run.name}: {line['bits_per_char']:.4f} bits/char, {line['seconds']:.0f} s", flush=True)


def run_phase(lab: Lab, runs: list[Run], worker: int, workers: int) -> None:
    """Do this worker's runs, then wait for the others."""
    for run in share_of(runs, worker, workers, COST):
        finish(lab, run)
    names = {run.name for run in runs}
    while names - {result.run.name for result in read_results(lab.out)}:
        if time.monotonic() > lab.deadline:
            raise OutOfTime("other workers have not ended their runs")
        time.sleep(0.5)


def all_phases(lab: Lab, options: argparse.Namespace, worker: int, workers: int) -> None:
    def best(phase: str, shape: str) -> dict[str, Run]:
        results = [r for r in read_results(lab.out) if r.run.tokens == options.search_tokens]
        return {f: best_run(results, phase, shape, f) for f in (ADAMW, MUON)}

    small, *wider = options.shapes
    run_phase(lab, search_runs(small, options.search_tokens), worker, workers)
    chosen = {(small, f): r for f, r in best("search", small).items()}
    for shape in wider:
        again = width_runs(shape, options.search_tokens, best("search", small))
        run_phase(lab, again, worker, workers)
        chosen |= {(shape, f): r for f, r in best("width", shape).items()}
    run_phase(
        lab, final_runs(chosen, options.tokens, options.shares, options.seeds), worker, workers
    )


def boxed(lab: Lab, options: argparse.Namespace) -> None:
    """One optimizer for so many minutes by the clock of training.

    Steps are computed from a measured speed, so that the schedule ends when the time does.
    """
    run = Run("box", options.shapes[0], options.optimizer, 0.4, 0, fp8=options.fp8)
    speed = lab.measure(run)
    lab.speed.clear()  # the limit is the caller's to choose: a box is not cut short
    finish(lab, replace(run, tokens=round(60 * options.box_minutes * speed)))


def optimizer_of(text: str) -> dict[str, Any]:
    """Keys of OptimizerConfig in YAML, and those that a Run's name wants.

    Raises:
        argparse.ArgumentTypeError: when OptimizerConfig refuses it, or it is of GaLore.
    """
    try:
        config = OptimizerConfig.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if config.name == "galore":
        raise argparse.ArgumentTypeError("galore is not compared here; name adamw, muon or normuon")
    return config.model_dump(exclude_unset=True, exclude_none=True) | {
        key: getattr(config, key) for key in ("name", "lr", "weight_decay")
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="folder with train/ and validation/ shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the JSONL files")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["26m", "64m"])
    parser.add_argument("--tokens", type=float, default=60e6, help="T, of AdamW's final runs")
    parser.add_argument("--search-tokens", type=float, default=16e6)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.7, 0.55])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=64, help="of a step")
    parser.add_argument("--size", type=int, default=1024, help="tokens in a row")
    parser.add_argument(
        "--worker", default="0/1", help="i/n: the i-th of n, each on a GPU of its own"
    )
    parser.add_argument("--limit-s", type=float, default=540, help="stop cleanly before that")
    parser.add_argument(
        "--box-minutes",
        type=float,
        help="instead: --optimizer for so long, on the first of --shapes",
    )
    parser.add_argument(
        "--optimizer", type=optimizer_of, default={}, metavar="YAML", help="of --box-minutes"
    )
    parser.add_argument("--fp8", action="store_true", help="of --box-minutes: precision=fp8")
    parser.add_argument(
        "--report", type=Path, metavar="SVG", help="instead: read OUT, print and draw"
    )
    options = parser.parse_args()
    options.tokens, options.search_tokens = int(options.tokens), int(options.search_tokens)
    if options.report:
        return report(read_results(options.out), options.report)
    if options.data is None:
        parser.error("--data is wanted")
    if bool(options.box_minutes) != bool(options.optimizer):
        parser.error("--box-minutes and --optimizer go together")
    if options.fp8 and not options.box_minutes:
        parser.error("--fp8 goes with --box-minutes")
    options.out.mkdir(parents=True, exist_ok=True)
    worker, workers = map(int, options.worker.split("/"))
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    lab = Lab(options, worker)
    try:
        if options.box_minutes:
            boxed(lab, options)
        else:
            all_phases(lab, options, worker, workers)
    except OutOfTime as stop:
        print(f"stopped: {stop}; the same command resumes", flush=True)


if __name__ == "__main__":
    main()

"""How many tokens Muon needs for AdamW's held-out loss: a search, then the best of each, three seeds.

Real text in its real order, packed and compiled as `mengya pretrain` does it. Every run's schedule is
its own and ends at its last token, so a run is compared with a run, never with a point of a longer one.
One JSONL file a run; a finished one is not trained again.

usage: mengya tokenizer recipes/zh-26m/tokenizer.yaml sources=TEXT out=DATA/tokenizer
       mengya prepare recipes/zh-26m/prepare-text.yaml sources=TEXT tokenizer=DATA/tokenizer out=DATA/text
       for i in 0 1; do python benchmarks/learning.py --data DATA/text --out OUT --worker $i/2 \
           --limit-s 540 & done; wait
       python benchmarks/learning.py --out OUT --report docs/pictures/learning.svg
       python benchmarks/learning.py --data DATA/text --out OUT --box-minutes 4.5 --worker $i/2
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from learning_plan import ADAMW, MUON, Run, final_runs, search_runs, share_of, width_runs
from learning_report import best_run, read_results, report
from torch import nn
from torch.optim import Optimizer
from train_speed import SHAPES

from mengya.data.datasets import PackedRows
from mengya.data.loader import batches, validation_batches
from mengya.data.mixture import Mixture
from mengya.data.shards import TokenShards
from mengya.losses.mean_loss import sum_loss
from mengya.losses.next_token import NextToken
from mengya.losses.token_nll import token_nll
from mengya.models.causal_lm import CausalLM
from mengya.models.config import ModelConfig
from mengya.runtime import pick_autocast_dtype, pick_device
from mengya.training.optim import OptimizerConfig, build_optimizers, set_lr
from mengya.training.schedule import ScheduleConfig, lr_factor
from mengya.training.strategy import SingleDevice

EVALUATIONS = 8  # of one run, the last at its end
COST = {"tiny": 1.0, "26m": 1.0, "64m": 1.6}  # seconds per token, relative


class OutOfTime(Exception):
    """The limit would be passed."""


class Lab:
    """One device, the data, and a compiled model of each shape that every run starts afresh."""

    def __init__(self, options: argparse.Namespace, worker: int) -> None:
        os.environ.setdefault("LOCAL_RANK", str(worker if torch.cuda.device_count() > 1 else 0))
        device = pick_device("auto")
        self.strategy = SingleDevice(device, pick_autocast_dtype("auto", device))
        self.compiled = device.type == "cuda"
        self.rows, self.size, self.out = options.rows, options.size, options.out
        self.deadline = time.monotonic() + options.limit_s
        train, held_out = (TokenShards(options.data / name) for name in ("train", "validation"))
        # One packing for all seeds, and one count of boundaries: shapes that change are compiled anew.
        self.packed, self.held_out = (PackedRows(s, self.size) for s in (train, held_out))
        documents = max(self.packed.max_documents, self.held_out.max_documents)
        self.packed.max_documents = self.held_out.max_documents = documents
        self.characters = held_out.manifest["characters"]
        self.vocab_size = train.vocab_size
        self.loss = NextToken(torch.compile(token_nll) if self.compiled else token_nll)
        self.models: dict[str, CausalLM] = {}
        self.speed: dict[str, float] = {}  # tokens per second, when known

    def model(self, shape: str, seed: int) -> CausalLM:
        """The model of this shape with the initial weights of `seed`."""
        config = ModelConfig(
            vocab_size=self.vocab_size, max_position_embeddings=self.size, **SHAPES[shape]
        )
        torch.manual_seed(seed)
        fresh = CausalLM(config)
        if shape not in self.models:
            self.models[shape] = fresh.to(self.strategy.device)
            if self.compiled:
                self.models[shape].compile()
        else:
            self.models[shape].load_state_dict(fresh.state_dict())
        return self.models[shape]

    def train(self, run: Run) -> Iterator[dict[str, float]]:
        """Train; gives a line of results at every evaluation.

        Raises:
            OutOfTime: when it would not end before the limit.
        """
        steps = max(1, round(run.tokens / (self.rows * self.size)))
        model = self.model(run.shape, run.seed)
        parameters = list(model.parameters())
        optimizers = optimizers_of(run, model)
        schedule = ScheduleConfig(
            name="wsd", warmup_ratio=0.05, decay_ratio=run.decay, min_lr_ratio=0.0
        )
        seconds, nll, started = 0.0, torch.zeros((), device=self.strategy.device), self._now()
        done = 0
        for step, (batch,) in enumerate(islice(self._batches(run.seed), steps)):
            model.train()
            set_lr(optimizers, lr_factor(step, steps, schedule))
            items = self.loss.items(batch)
            batch = batch.to(self.strategy.device, non_blocking=True)
            with self.strategy.autocast():
                result = self.loss(model, batch)
            self.strategy.backward(result.loss / items)
            self.strategy.step(optimizers, parameters, 1.0)
            nll += result.metrics["nll"] / items
            if (step + 1) * EVALUATIONS // steps > step * EVALUATIONS // steps:
                seconds += self._now() - started
                since, done = step + 1 - done, step + 1
                yield {
                    "step": done, "tokens": done * self.rows * self.size, "seconds": seconds,
                    "train_nll": float(nll) / since, **self.evaluate(model),
                }  # fmt: skip
                nll.zero_()
                self.check_time(run, (steps - done) / steps)
                started = self._now()
        self.speed[run.shape] = steps * self.rows * self.size / seconds

    def evaluate(self, model: CausalLM) -> dict[str, float]:
        model.eval()
        held_out = validation_batches(self.held_out, self.rows)
        with self.strategy.autocast():
            sums, items = sum_loss(model, self.loss, held_out, self.strategy.device)
        bits = sums["nll"] / math.log(2) / self.characters
        return {"nll": sums["nll"] / items, "bits_per_char": bits}

    def check_time(self, run: Run, share: float = 1.0) -> None:
        """Raises OutOfTime when `share` of the run does not fit before the limit, as far as is known."""
        wanted = share * run.tokens / self.speed.get(run.shape, float("inf"))
        if time.monotonic() + wanted > self.deadline:
            raise OutOfTime(f"{run.name} would take {wanted:.0f} s more than the limit leaves")

    def measure(self, shape: str, optimizer: dict[str, Any], steps: int = 40) -> float:
        """Tokens per second once compiled."""
        run = Run("measure", shape, optimizer, 0.4, steps * self.rows * self.size)
        for _ in range(2):
            list(self.train(run))
        return self.speed[shape]

    def _batches(self, seed: int) -> Iterator[list[Any]]:
        rows = Mixture([(self.packed, None)], seed)
        return batches(rows, start_row=0, global_batch_size=self.rows, micro_batch_size=self.rows)

    def _now(self) -> float:
        if self.strategy.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def optimizers_of(run: Run, model: nn.Module) -> list[Optimizer]:
    settings = dict(run.optimizer)
    spectral = settings.pop("spectral", False)
    optimizers = build_optimizers(model, OptimizerConfig(**settings))
    if spectral:
        (group,) = optimizers[1].param_groups
        by_shape: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        for p in group["params"]:
            by_shape[p.shape[0], p.shape[1]].append(p)
        width = max(rows for rows, columns in by_shape if rows == columns)
        optimizers[1].param_groups = []
        for (rows, columns), alike in by_shape.items():
            factor = math.sqrt(max(1, rows / columns) * width / max(rows, columns))
            changed = {
                "peak_lr": group["lr"] * factor,
                "weight_decay": group["weight_decay"] / factor,
            }
            optimizers[1].param_groups.append({**group, **changed, "params": alike})
    return optimizers


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


def boxed(lab: Lab, options: argparse.Namespace, worker: int, workers: int) -> None:
    """The best Muon for so many minutes, the best AdamW for twice as many; by the clock of training.

    Steps are computed from a measured speed, so that the schedule ends when the time does.
    """
    shape = options.shapes[0]
    families = {ADAMW: 2 * options.box_minutes, MUON: options.box_minutes}
    for number, (family, minutes) in enumerate(families.items()):
        if number % workers == worker:
            chosen = best_run(read_results(lab.out), "search", shape, family)
            speed = lab.measure(shape, chosen.optimizer)
            lab.speed.clear()  # the limit is the caller's to choose: a box is not cut short
            finish(lab, replace(chosen, phase="box", tokens=round(60 * minutes * speed)))


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
        "--box-minutes", type=float, help="instead: Muon so long, AdamW twice as long"
    )
    parser.add_argument(
        "--report", type=Path, metavar="SVG", help="instead: read OUT, print and draw"
    )
    options = parser.parse_args()
    options.tokens, options.search_tokens = int(options.tokens), int(options.search_tokens)
    if options.report:
        return report(read_results(options.out), options.report)
    if options.data is None:
        parser.error("--data is wanted")
    options.out.mkdir(parents=True, exist_ok=True)
    worker, workers = map(int, options.worker.split("/"))
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    work: Callable[..., None] = boxed if options.box_minutes else all_phases
    try:
        work(Lab(options, worker), options, worker, workers)
    except OutOfTime as stop:
        print(f"stopped: {stop}; the same command goes on", flush=True)


if __name__ == "__main__":
    main()

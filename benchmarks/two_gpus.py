"""One GPU against two: tokens per second of the 64M model under DDP and FSDP2, and a 1.5B model under FSDP2.

Weak scaling: every process takes the same micro-batch of made-up tokens, so twice the speed is the
goal. Each row of the table is a job of its own, started with torchrun; a step is the one of the
Trainer: the host's sum over ranks, forward, backward, clip, update. Optimizer, shape and micro-batch
of the 1.5B model are those of recipes/bumblebee-1.5b.

usage: python benchmarks/two_gpus.py [--processes 2] [--rows 64] [--steps 20] [--no-compile]
       python benchmarks/two_gpus.py --cpu --tiny          (gloo, seconds: whether it runs)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pretraining_data import documents, packed
from shapes import SHAPES

from mengya.config import load_config
from mengya.kernels.cross_entropy import linear_nll
from mengya.losses.next_token import NextToken
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.planning.sizes import parameter_counts
from mengya.stages.pretrain import PretrainConfig
from mengya.training.distributed.registry import build_strategy
from mengya.training.execution import resolve_execution
from mengya.training.health.watchdog import Watchdog
from mengya.training.optim.build import build_optimizers
from mengya.training.run_config import LoopConfig
from mengya.training.state import TrainState

RECIPE = Path(__file__).parents[1] / "recipes/bumblebee-1.5b/pretrain.yaml"
RESULT = "result: "


@dataclass
class Job:
    """One row of the table.

    Attributes:
        model, optimizer, strategy: values of the configs of these names.
        rows, size: micro-batch of one process. micro_batches: of a step.
        warmup: steps before the clock starts; compilation falls into the first. The clock runs over all
            of `steps`, with no synchronisation between them but the Trainer's.
    """

    name: str
    processes: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    strategy: dict[str, Any]
    rows: int
    size: int
    steps: int
    device: str
    compiled: bool
    micro_batches: int = 1
    warmup: int = 5


def measure(job: Job) -> dict[str, float]:
    """Run the job as one of its processes; real tokens per second of all, peak GiB of this one."""
    run = PretrainConfig.model_validate(
        {
            "run_dir": ".", "tokenizer": ".", "data": {"train": ["."]}, "max_steps": 1,
            "model": job.model, "optimizer": job.optimizer, "strategy": job.strategy,
            "device": "cpu" if job.device == "cpu" else "cuda", "compile": job.compiled,
            "micro_batch_size": job.rows, "global_batch_size": None,
        }
    )  # fmt: skip
    execution = resolve_execution(run)
    device = execution.device
    strategy = build_strategy(run, execution)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    config = ModelConfig(**job.model)
    started = time.perf_counter()
    model = CausalLM(config, device=strategy.init_device)
    strategy.place(model)
    optimizers = build_optimizers(model, run.optimizer, strategy.dp_group)
    module = strategy.wrap(model, optimizers)
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = NextToken(linear_nll=linear_nll if device.type == "cuda" else None)
    batch = packed(documents(job.rows * 4, job.size, config.vocab_size), job.rows, job.size)
    real = int((batch.document_ids >= 0).sum()) * job.micro_batches
    began, ready = started, 0.0
    model.train()
    tokens, watchdog = 0, Watchdog(LoopConfig(), TrainState(), print)
    for step in range(job.warmup + job.steps):
        if step == job.warmup:
            began = _now(device)
            ready = began - started
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
        pending = watchdog.pending_loss()
        own = [loss.items(batch) * job.micro_batches, real, pending or 0.0]
        *counts, loss_sum = strategy.all_reduce(torch.tensor(own, dtype=torch.float64)).tolist()
        items, tokens = map(int, counts)
        if pending is not None:
            watchdog.resolve(loss_sum)
        total = torch.zeros((), device=device)
        for number in range(1, job.micro_batches + 1):
            with strategy.accumulate(module, last=number == job.micro_batches):
                with strategy.autocast():
                    result = loss(module, batch.to(device, non_blocking=True))
                strategy.backward(result.loss / items)
            total += result.loss.detach()
        norm = strategy.step(optimizers, parameters, 1.0)
        watchdog.record(step, items, tokens, total, norm)
    seconds = (_now(device) - began) / job.steps
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    rank = strategy.rank
    strategy.close()
    return {"rank": rank, "speed": tokens / seconds, "peak": peak, "ready": ready}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def run(job: Job) -> dict[str, float] | None:
    """The job's result on rank 0; None when it failed, after its own words."""
    launcher = [sys.executable]
    if job.processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += [f"--nproc_per_node={job.processes}"]
    words = [*launcher, str(Path(__file__).resolve()), "--job", json.dumps(asdict(job))]
    env = {**os.environ, "OMP_NUM_THREADS": "1" if job.device == "cpu" else "4"}
    done = subprocess.run(words, text=True, stdout=subprocess.PIPE, env=env)
    found = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not found:
        print(done.stdout, f"\n{job.name} on {job.processes}: failed", sep="", flush=True)
        return None
    return json.loads(found[0].removeprefix(RESULT))


def jobs(options: argparse.Namespace) -> list[Job]:
    device = "cpu" if options.cpu else "cuda"
    compiled = device == "cuda" and not options.no_compile
    many = options.processes
    if options.tiny:
        rows, size, steps = 4, 128, min(options.steps, 5)
        small: dict[str, Any] = SHAPES["tiny"] | {"vocab_size": 512}
        large: dict[str, Any] = SHAPES["tiny"] | {"vocab_size": 2048, "qk_norm": False}
    else:
        rows, size, steps = options.rows, 1024, options.steps
        small = SHAPES["64m"] | {"vocab_size": 6400, "max_position_embeddings": 1024}
        large = {}
    recipe = load_config(PretrainConfig, RECIPE)
    assert recipe.model is not None
    large = large or recipe.model.model_dump(exclude_defaults=True)
    recipe_optimizer = recipe.optimizer.model_dump(exclude_defaults=True)
    adamw: dict[str, Any] = {"name": "adamw"}
    fsdp = {"name": "fsdp"}
    shared = {"size": size, "device": device, "compiled": compiled}
    some = {"rows": rows, "steps": steps, **shared}
    few_rows = rows if options.tiny else recipe.micro_batch_size
    few = {"rows": few_rows, "steps": 5, "warmup": 3, **shared}
    return [
        Job("64M", 1, small, adamw, {"name": "auto"}, **some),
        Job("64M DDP", many, small, adamw, {"name": "ddp"}, **some),
        Job("64M FSDP2", many, small, adamw, fsdp, **some),
        Job("1.5B FSDP2 adamw", many, large, adamw, fsdp, **few),
        Job(f"1.5B FSDP2 {recipe.optimizer.name}", many, large, recipe_optimizer, fsdp, **few),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", default="", help="run the jobs whose name begins with this")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        result = measure(Job(**json.loads(options.job)))
        if result["rank"] == 0:
            print(RESULT + json.dumps(result), flush=True)
        return
    name = "cpu" if options.cpu else torch.cuda.get_device_name()
    print(f"{options.processes} processes, {name}, torch {torch.__version__}")
    print(
        f"{'':20} {'GPUs':>4} {'rows x size':>12} {'tokens/s':>12} {'of one':>7} "
        f"{'peak GiB':>9} {'start s':>8}"
    )
    one = None
    for job in jobs(options):
        if not job.name.startswith(options.only):
            continue
        result = run(job)
        if result is None:
            continue
        if job.processes == 1:
            one = result["speed"]
        is_small = job.name.startswith("64M")
        times = f"{result['speed'] / one:.2f}x" if one and is_small else ""
        print(
            f"{job.name:20} {job.processes:4} {f'{job.rows} x {job.size}':>12} {result['speed']:12,.0f} "
            f"{times:>7} {result['peak']:9.1f} {result['ready']:8.1f}", flush=True,
        )  # fmt: skip
    large = ModelConfig(**jobs(options)[-1].model)
    print(f"the larger model has {parameter_counts(large).total / 1e6:,.1f}M parameters")


if __name__ == "__main__":
    main()

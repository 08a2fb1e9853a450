"""Does `mengya plan` tell the truth: planned and measured memory and speed of short real runs.

Each shape trains some steps by `mengya pretrain` itself, in a process of its own, on shards of random
tokens made in a temporary folder; then its plan is made from the same recipe on the same device.
Printed: planned, measured and their ratio, and the line that planning/hardware.yaml wants (MFU).
On CUDA memory is what torch allocated at most, on a CPU the largest RSS.

usage: python benchmarks/plan_check.py [--shapes 26m 64m moe vocabulary 26m-muon] [--steps 40]
       python benchmarks/plan_check.py --shapes tiny        (CPU)
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import shapes
import torch
import yaml

from mengya.data.shards import ShardWriter
from mengya.planning.estimate import model_kind, run_kind
from mengya.planning.hardware import match_device
from mengya.runtime.jsonl import read_jsonl
from mengya.stages.plan import make_plan
from mengya.tokenizer.load import save_tokenizer, tokenizer_hash
from mengya.tokenizer.train import train_tokenizer

VALUES = {"vocab_size": 6400, "max_position_embeddings": 2048}
DENSE_64M: dict[str, Any] = {**shapes.SHAPES["64m"], **VALUES}
DENSE_26M: dict[str, Any] = {**shapes.SHAPES["26m"], **VALUES}
# shape -> (model, rows a micro-batch, rows a step, positions a row, optimizer)
SHAPES: dict[str, tuple[dict[str, Any], int, int, int, str]] = {
    "26m": (DENSE_26M, 64, 64, 1024, "adamw"),
    "26m-muon": (DENSE_26M, 64, 128, 1024, "muon"),
    "64m": (DENSE_64M, 64, 64, 1024, "adamw"),
    "moe": ({**shapes.SHAPES["198m-moe"], **VALUES}, 32, 32, 1024, "adamw"),
    "vocabulary": (
        {**shapes.SHAPES["159m"], **VALUES, "vocab_size": 151_669}, 16, 16, 1024, "adamw",
    ),
    "tiny": (
        {**DENSE_64M, "vocab_size": 3200, "hidden_size": 192, "intermediate_size": 512,
         "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2},
        8, 8, 256, "adamw",
    ),
    "small": ({**DENSE_26M, "num_hidden_layers": 4}, 8, 8, 256, "adamw"),
}  # fmt: skip
LOG_EVERY = 5


def write_inputs(folder: Path, shape: str, steps: int) -> Path:
    """Tokenizer, shards of enough random documents (64 to 1,024 tokens) and the recipe."""
    model, micro, batch, length, optimizer = SHAPES[shape]
    texts = [f"第{i}天，小满买了{i % 9}个苹果。" for i in range(200)]
    save_tokenizer(train_tokenizer(texts, 300, show_progress=False), folder / "tokenizer")
    rng = np.random.default_rng(0)
    writer = ShardWriter(folder / "shards", "text", model["vocab_size"])
    wanted = batch * length * max(steps // 2, 2)  # two epochs at most: packing has material
    while wanted > 0:
        lengths = rng.integers(64, 1025, 4096)
        ids = rng.integers(0, model["vocab_size"], lengths.sum())
        ids[np.cumsum(lengths) - lengths] = 0  # <|endoftext|> opens a document
        writer.add(ids, lengths)
        wanted -= int(lengths.sum())
    sha256 = tokenizer_hash(folder / "tokenizer")
    writer.close(tokenizer={"sha256": sha256}, characters=0)
    recipe = folder / "pretrain.yaml"
    values: dict[str, Any] = {
        "run_dir": str(folder / "run"), "tokenizer": str(folder / "tokenizer"), "model": model,
        "data": {"train": [str(folder / "shards")], "sequence_length": length},
        "micro_batch_size": micro, "global_batch_size": batch, "max_steps": steps, "trackers": [],
        "optimizer": {"name": optimizer, "lr": 1e-4},
        "loop": {"log_every": LOG_EVERY, "save_every": 10**6, "eval_every": 10**6},
    }  # fmt: skip
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    return recipe


def measure(shape: str, steps: int, extra: list[str]) -> dict[str, Any]:
    """Train in another process, then plan here: planned and measured of one shape."""
    with TemporaryDirectory(prefix="plan-check-") as name:
        folder = Path(name)
        recipe = write_inputs(folder, shape, steps)
        command = [
            sys.executable,
            __file__,
            "--train",
            str(recipe),
            *(["--set", *extra] if extra else []),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{shape} failed:\n{done.stderr[-3000:]}")
        rss = json.loads(done.stdout.splitlines()[-1])["rss"]
        plan = make_plan(recipe, extra)
        lines = [m for m in read_jsonl(folder / "run/metrics.jsonl") if "tokens_per_second" in m]
        # The first lines compile; the peak is over all of them.
        speed = statistics.median(m["tokens_per_second"] for m in lines[2:])
        on_gpu = plan.device.kind == "cuda"
        memory = max(m["memory_gib"] for m in lines) * 2**30 if on_gpu else rss
        return {
            "shape": shape,
            "plan": plan,
            "memory": (plan.memory.allocated if on_gpu else plan.memory.needed, memory),
            "speed": (plan.tokens_per_second, speed),
        }


def train(recipe: Path, extra: list[str]) -> None:
    from mengya.config import load_config
    from mengya.stages.pretrain import PretrainConfig, run

    run(load_config(PretrainConfig, recipe, extra))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rss": peak}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["26m", "64m", "moe"])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--set", nargs="+", default=[], help="such as compile=false precision=fp32")
    options = parser.parse_args()
    if options.train:
        return train(options.train, options.set)
    if options.steps < 3 * LOG_EVERY:
        parser.error(
            f"--steps {options.steps}: at least {3 * LOG_EVERY}; the first {2 * LOG_EVERY} compile"
        )
    print(f"torch {torch.__version__}, {date.today()}")
    print(f"{'':11}{'memory, GiB':>26}{'tokens/s':>32}")
    print(f"{'shape':11}" + f"{'planned':>9}{'measured':>10}{'ratio':>7}  " * 2 + "  MFU")
    points = []
    for shape in options.shapes:
        result = measure(shape, options.steps, options.set)
        plan = result["plan"]
        planned, measured = (value / 2**30 for value in result["memory"])
        line = f"{shape:11}{planned:9.2f}{measured:10.2f}{planned / measured:7.2f}  "
        expected, speed = result["speed"]
        mfu = float("nan")
        if expected is not None:
            mfu = speed / expected * plan.expected.mfu
            line += f"{expected:9,.0f}{speed:10,.0f}{expected / speed:7.2f}  {mfu:6.1%}"
        print(line, flush=True)
        points.append((shape, plan, speed, mfu))
    print("\nlines for src/mengya/planning/hardware.yaml (from AdamW runs):")
    for shape, plan, speed, mfu in points:
        if plan.config.optimizer.name == "muon":
            continue
        kind, run = model_kind(plan.model), run_kind(plan.settings)
        key = match_device(plan.device.name)
        device = "" if key is None else f"device: {key}, "
        share = plan.flops.output / plan.flops.total
        rows = f"{plan.settings.rows} x {plan.settings.length:,}"
        print(
            f"  - {{kind: {kind}, run: {run}, {device}hidden_size: {plan.model.config.hidden_size}, "
            f"output: {share:.3f}, mfu: {mfu:.3f},\n"
            f'     source: "{plan.device.name}, {date.today()}, benchmarks/plan_check.py {shape}: {rows}, '
            f'{speed:,.0f} tokens/s"}}'
        )


if __name__ == "__main__":
    main()

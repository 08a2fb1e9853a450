"""A run that is killed with SIGKILL at random moments, again and again, next to one that never was.

    python -m tests.helpers.kill_resume [--kills 100] [--steps 300] [--save-every 10] [--seed 0]
        [--folder DIR]

Trains a tiny model on the CPU. Every second kill falls at any time, the others while a checkpoint is
being written (its staging folder exists). Each time the same settings resume with resume=true. When a
run reaches its end before all kills are spent, another is begun. Prints a table, and fails where the
final bytes differ from the uninterrupted run, a checkpoint is damaged after a kill, or more steps
were lost than two saves are apart (one save may be under way, the one before is on disk).

Children are forked from a process that has everything imported: a kill costs a fraction of a second.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: threads of OpenMP do not outlive a fork

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mengya.data.shards import ShardWriter
from mengya.runtime.jsonl import read_steps
from mengya.stages import pretrain
from mengya.stages.pretrain import PretrainConfig
from mengya.tokenizer.load import (
    document_token_id,
    load_tokenizer,
    save_tokenizer,
    tokenizer_hash,
)
from mengya.tokenizer.train import train_tokenizer
from mengya.training.checkpoint.integrity import find_damage
from mengya.training.checkpoint.store import CheckpointStore

FORK = multiprocessing.get_context("fork")


def make_data(folder: Path) -> None:
    """A tokenizer and shards of random documents: what is learned does not matter here."""
    letters = [chr(0x4E00 + i) for i in range(100)]
    texts = ["".join(random.Random(i).choices(letters, k=200)) for i in range(200)]
    save_tokenizer(train_tokenizer(texts, 400, show_progress=False), folder / "tokenizer")
    tokenizer = load_tokenizer(folder / "tokenizer")
    size, edge = len(tokenizer), document_token_id(tokenizer)
    rng = np.random.default_rng(0)
    for split, count in (("train", 400), ("few", 60), ("validation", 20)):
        writer = ShardWriter(folder / split, "text", size)
        for length in rng.integers(10, 200, count):
            ids = rng.integers(0, size, length)
            ids[0] = edge
            writer.add(ids, np.array([length]))
        sha256 = tokenizer_hash(folder / "tokenizer")
        writer.close(tokenizer={"sha256": sha256}, characters=1000)


def settings(folder: Path, name: str, steps: int, save_every: int) -> PretrainConfig:
    shape = {
        "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    every = {"log_every": 1, "eval_every": steps, "save_every": save_every, "sample_every": steps}
    return PretrainConfig.model_validate(
        {
            "run_dir": folder / name, "tokenizer": folder / "tokenizer", "model": shape,
            "data": {
                "train": [
                    {"path": str(folder / "train"), "name": "many", "order": "short_first"},
                    {"path": str(folder / "few"), "max_epochs": 2},
                ],
                "validation": [str(folder / "validation")], "sequence_length": 64,
                "phases": [{"until": 0.4}, {"weights": {"many": 1, "few": 1}}],
            },
            "micro_batch_size": 2, "max_steps": steps, "loop": every, "resume": True,
            "optimizer": {"name": "muon"}, "save_dtype": "bfloat16",
            "device": "cpu", "precision": "fp32", "trackers": [],
        }
    )  # fmt: skip


def start(config: PretrainConfig) -> BaseProcess:
    def child() -> None:
        torch.set_num_threads(1)
        with (config.run_dir.parent / "log.txt").open("a") as log:
            os.dup2(log.fileno(), 2)
            pretrain.run(config)

    process = FORK.Process(target=child)
    process.start()
    return process


def kill(process: BaseProcess, run_dir: Path, rng: random.Random, in_save: bool) -> str:
    """Kill at a random moment; returns in which: "write", "step", or "end" when the run was faster."""
    if in_save:
        drafts = run_dir / "checkpoints"
        while process.is_alive() and not any(drafts.glob(".step-*.mengya-partial")):
            time.sleep(0.0002)
        time.sleep(rng.uniform(0, 0.03))
    else:
        process.join(rng.uniform(0.1, 1.5))
    moment = "write" if any((run_dir / "checkpoints").glob(".*.mengya-partial")) else "step"
    process.kill()
    process.join()
    if process.exitcode == -signal.SIGKILL:
        return moment
    if process.exitcode:
        raise SystemExit(f"the run failed: {(run_dir.parent / 'log.txt').read_text()[-3000:]}")
    return "end"


def final(run_dir: Path) -> dict[str, bytes]:
    """Every file of the last checkpoint, and the losses that were logged."""
    folder = (run_dir / "checkpoints/latest").resolve()
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    losses = [
        (line["step"], line["loss"])
        for line in read_steps(run_dir / "metrics.jsonl")
        if "loss" in line
    ]
    return found | {"losses": json.dumps(losses).encode()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--save-every", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    rng, started = random.Random(options.seed), time.perf_counter()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill-resume-"))
    make_data(folder)
    uninterrupted = settings(folder, "uninterrupted", options.steps, options.save_every)
    process = start(uninterrupted)
    process.join()
    expected = final(uninterrupted.run_dir)

    moments = {"write": 0, "step": 0}
    lost: list[int] = []
    runs, same, damaged = 0, True, 0
    while sum(moments.values()) < options.kills or process.is_alive():
        config = settings(folder, f"killed-{runs}", options.steps, options.save_every)
        runs += 1
        ended = False
        while not ended:
            process = start(config)
            killed = sum(moments.values())
            if killed >= options.kills:
                process.join()
                break
            moment = kill(process, config.run_dir, rng, in_save=killed % 2 == 1)
            ended = moment == "end"
            if ended:
                continue
            moments[moment] += 1
            checkpoints = CheckpointStore(config.run_dir, 1)
            latest = checkpoints.latest()
            damaged += latest is not None and find_damage(latest) is not None
            reached = max(
                (of["step"] for of in read_steps(config.run_dir / "metrics.jsonl")), default=0
            )
            lost.append(reached - (checkpoints.read_state(latest).step if latest else 0))
        same &= final(config.run_dir) == expected

    table = Table(
        title=f"{options.steps} steps, save_every {options.save_every}, seed {options.seed}"
    )
    for name, value in {
        "kills": sum(moments.values()),
        "of these while a checkpoint was being written": moments["write"],
        "runs, each to its end": runs,
        "steps lost in all": sum(lost),
        "most steps lost at once": max(lost, default=0),
        "checkpoints damaged by a kill": damaged,
        "final bytes equal to the uninterrupted run": "yes" if same else "no",
        "seconds": round(time.perf_counter() - started),
    }.items():
        table.add_row(name, str(value))
    Console(width=100).print(table)
    if not same or damaged or max(lost, default=0) > 2 * options.save_every:
        sys.exit("FAILED")


if __name__ == "__main__":
    main()

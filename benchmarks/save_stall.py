"""What a checkpoint costs training: the stall of each save, and the time of a step.

    python benchmarks/save_stall.py [--shape 26m] [--rows 16] [--length 1024] [--block 40] [--saves 4]
                                    [--save-every 200] [--folder DIR]

Runs the real Trainer on random tokens, on CUDA where there is one, with a save every `block` steps.
For each save: the time that the training thread spent in it (the first one allocates the host
memory), and the time by which the block after it took longer than `block` median steps (on a GPU the
copy, on a CPU also the share of the cores that the writing thread took). Both are then given as a
share of one step, spread over `save_every` steps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from shapes import SHAPES

from mengya.batch import Batch
from mengya.losses.next_token import NextToken
from mengya.losses.token_nll import token_nll
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import save_hf_folder
from mengya.runtime.device import init_device, pick_autocast_dtype
from mengya.runtime.jsonl import read_jsonl
from mengya.training.checkpoint.manager import CheckpointManager
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution
from mengya.training.optim.build import build_optimizers
from mengya.training.optim.config import OptimizerConfig
from mengya.training.run_config import LoopConfig
from mengya.training.schedule import ScheduleConfig
from mengya.training.telemetry.metrics import MetricsLog
from mengya.training.telemetry.progress import ProgressBar
from mengya.training.trainer import Data, Observer, Optimization, Trainer

VOCAB = 6400


def endless(rows: int, length: int, times: list[float]) -> Iterator[list[Batch]]:
    """One random batch, over and over; `times` gets the moment of each step's start."""
    ids = torch.randint(0, VOCAB, (rows, length + 1))
    batch = Batch(
        input_ids=ids[:, :-1].contiguous(),
        labels=ids[:, 1:].contiguous(),
        position_ids=torch.arange(length).repeat(rows, 1),
        document_ids=torch.zeros(rows, length, dtype=torch.int64),
        cu_seqlens=torch.arange(0, rows * length + 1, length, dtype=torch.int32),
    )
    batch = batch.pin_memory() if torch.cuda.is_available() else batch
    while True:
        times.append(time.perf_counter())
        yield [batch]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="26m")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--block", type=int, default=40)
    parser.add_argument("--saves", type=int, default=4)
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="save-stall-"))
    device, block = init_device(), options.block
    strategy = SingleDevice(Execution(device, pick_autocast_dtype("auto", device)))
    config = ModelConfig(
        vocab_size=VOCAB, max_position_embeddings=options.length, **SHAPES[options.shape]
    )
    model = CausalLM(config).to(device)
    optimizers = build_optimizers(model, OptimizerConfig())
    nll = token_nll
    if device.type == "cuda":
        model.compile()
        nll = torch.compile(token_nll)
    steps = block * (options.saves + 1)
    loop = LoopConfig(
        log_every=block,
        save_every=block,
        eval_every=steps,
        sample_every=steps,
        spike_threshold=None,
    )
    times: list[float] = []
    progress = ProgressBar("save_stall", steps, shown=True)
    checkpoints = CheckpointManager(
        folder, loop, strategy, model, optimizers,
        model_tensors=model.state_dict,
        write_model=lambda path, tensors: save_hf_folder(tensors, config, path),
        read_model=lambda model, path: None,
        warn=progress.warn,
    )  # fmt: skip
    Trainer(
        model=model,
        module=model,
        loss=NextToken(nll),
        data=Data(lambda step: endless(options.rows, options.length, times)),
        optimization=Optimization(optimizers, ScheduleConfig(), steps, max_grad_norm=1.0),
        strategy=strategy,
        observer=Observer(progress, partial(MetricsLog, folder, trackers=[], run_config={})),
        checkpoints=checkpoints,
        loop=loop,
        seed=0,
        run_dir=folder,
    ).fit()

    durations = [after - before for before, after in pairwise(times)]
    step = statistics.median(durations[block // 2 :])
    stalls = [
        line["save_stall_seconds"]
        for line in read_jsonl(folder / "metrics.jsonl")
        if "save_stall_seconds" in line
    ]
    latest = folder / "checkpoints/latest"
    size = sum(path.stat().st_size for path in latest.rglob("*") if path.is_file()) / 2**20
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    table = Table(
        title=f"{options.shape}, {options.rows} x {options.length}, {name}: step "
        f"{1000 * step:.1f} ms, checkpoint {size:.0f} MiB"
    )
    for column in ("save", "stall, ms", "of a step", "longer, ms", "of a step"):
        table.add_column(column, justify="right")
    for number, stall in enumerate(stalls, 1):
        # The save after step n*block lies between the starts of that step's successor and itself.
        first = number * block - 1
        longer = sum(durations[first : first + block]) - block * step
        shares = (f"{value / step / options.save_every:.2%}" for value in (stall, longer))
        stall_share, longer_share = shares
        table.add_row(
            str(number), f"{1000 * stall:.1f}", stall_share, f"{1000 * longer:.1f}", longer_share
        )
    Console(width=100).print(table)
    Console(width=100).print(f"shares are spread over save_every={options.save_every} steps")


if __name__ == "__main__":
    main()

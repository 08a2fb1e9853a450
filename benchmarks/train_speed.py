"""Pretraining speed and memory, ours and transformers' own Trainer, in one run on one device.

All get the same documents of 64 to 1,024 tokens, bf16, fused AdamW, the same shape. Counted are real
tokens, never padding. Each case runs on its own: one that fails prints why and the rest continues.

ours             packed rows, documents masked from each other, through loader, loss, strategy and
                 optimizer as `mengya pretrain` puts them together (stages/run/assemble.py)
Trainer, padded  what its users give it: one document a row, padded to the longest of the batch
                 (compiled: to the full length, so that shapes stay fixed)
Trainer, masked  rows packed full with position ids that start again in each document: the same
                 function as ours
Trainer, leaking rows packed full as if each were one document: attention crosses documents, which is
                 not the same function, but the fastest that the Trainer can go

The Trainer's experts add no balancing loss, ours do. The share of the matmul peak counts 6 FLOPs per
active parameter and token, and no attention.

usage: python benchmarks/train_speed.py [--shape 26m 64m 198m-moe 159m] [--muon] [--fp8] [--ablate] [--cpu]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from our_step import ours, real_tokens, steps_of
from peers import StepDone, clocked, common_arguments, quiet, stock_model, timed
from pretraining_data import Packed, Padded, RowList, documents, packed_rows
from shapes import SHAPES, config_of, rows_of
from timing import HEAD, Clock, Timing, attempt, line, matmul_peak, time_steps
from transformers import Trainer, TrainingArguments, set_seed

from mengya.models.config.model import ModelConfig
from mengya.planning.sizes import parameter_counts
from mengya.runtime.device import init_device, pick_autocast_dtype
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution
from mengya.training.optim.config import OptimizerConfig

# What makes ours fast, and how to take it away: (keywords of `ours`, names to patch).
MEANS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as it ships": ({}, {}),
    "no compiler": ({"compiled": False}, {}),
    "one graph of the model": ({"single_graph": True}, {}),
    "logits of the full batch": ({"logits": True}, {}),
    "no fused q/k/v kernel": ({}, {"mengya.kernels.qkv.is_supported": lambda *a: False}),
    "no fused SwiGLU": ({}, {"mengya.kernels.swiglu.is_supported": lambda *a: False}),
    "no merged products, so no kernels": ({}, {"mengya.models.attention.can_merge": lambda *a: False,
                                 "mengya.models.feed_forward.can_merge": lambda *a: False,
                                 "mengya.kernels.linear.can_merge": lambda *a: False}),
    "loss of a chunk by PyTorch": ({}, {"mengya.kernels.cross_entropy.has_triton": lambda: False}),
    "the norm is read in every step": ({"waits": True}, {}),
}  # fmt: skip


def time_ours(
    config: ModelConfig, rows: RowList, size: int, strategy: SingleDevice, clock: Clock,
    patches: dict[str, Any] | None = None, **how: Any,
) -> Timing:  # fmt: skip
    """Our step over `rows`, `size` of them at a time, with names patched to take a means away."""
    set_seed(0)
    replaced = [patch(name, value) for name, value in (patches or {}).items()]
    for one in replaced:
        one.start()
    try:
        how.setdefault("compiled", strategy.device.type == "cuda")
        return time_steps(ours(config, strategy, **how), steps_of(rows, size), real_tokens, clock)
    finally:
        for one in replaced:
            one.stop()


def time_trainer(
    config: ModelConfig, examples: Sequence[dict[str, np.ndarray]], collator: Callable[..., Any],
    size: int, compiled: bool, clock: Clock,
) -> Timing:  # fmt: skip
    """transformers' Trainer over `examples`, `size` of them in a batch, all in one epoch."""
    set_seed(0)
    torch.set_float32_matmul_precision("high")
    arguments = TrainingArguments(
        **common_arguments(clock), per_device_train_batch_size=size, torch_compile=compiled,
        remove_unused_columns=False,
    )  # fmt: skip
    times = -(-clock.total * size // len(examples))
    trainer = clocked(Trainer, clock)(
        model=stock_model(config), args=arguments, train_dataset=list(examples) * times,
        data_collator=collator, callbacks=[StepDone(clock)],
    )  # fmt: skip
    return timed(trainer, clock)


def compare(shape: str, options: argparse.Namespace, strategy: SingleDevice, peak: float) -> None:
    """All cases of one shape, printed as they come."""
    device, size = strategy.device, options.size
    config = config_of(shape, size)
    rows = options.rows or (2 if options.cpu else rows_of(shape))
    docs = documents(rows * 32, size, config.vocab_size)
    row_list = RowList(packed_rows(docs, rows * 16, size))
    alone = [{"input_ids": doc[:-1]} for doc in docs]
    full = [{"input_ids": r.input_ids, "position_ids": r.position_ids} for r in row_list.rows]
    counts = parameter_counts(config)
    print(
        f"\n{shape}: {counts.total / 1e6:.0f}M parameters, {counts.active / 1e6:.0f}M active, "
        f"{rows} rows of {size}\n{HEAD} {'of peak':>8}",
        flush=True,
    )

    def case(name: str, work: Callable[[Clock], Timing]) -> Timing | None:
        clock = Clock(device, options.warmup, options.steps, options.windows)
        timing = attempt(f"{shape}, {name}", lambda: work(clock))
        if timing is not None:
            share = f"{6 * counts.active * timing.speed / peak:8.1%}"
            print(line(name, timing, share), flush=True)
        return timing

    def mine(clock: Clock, **how: Any) -> Timing:
        return time_ours(config, row_list, rows, strategy, clock, **how)

    if options.ablate:
        for name, (how, patches) in MEANS.items():
            case(name, partial(mine, patches=patches, **how))
        return
    results: dict[str, Timing | None] = {"mengya": case("mengya", mine)}
    if options.fp8:
        results["mengya, fp8"] = case("mengya, fp8", partial(mine, fp8=True))
    for name in ("muon", "normuon") if options.muon else ():
        case(f"mengya, {name}", partial(mine, optimizer=OptimizerConfig(name=name)))  # type: ignore[arg-type]
    dense = not config.num_experts
    for how in options.trainer:
        for name, examples, collator in (
            ("padded", alone, Padded(size if how == "compiled" else None)),
            ("packed, masked", full, Packed(True, dense)),
            ("packed, leaking between documents", full, Packed(False, dense)),
        ):
            name = f"Trainer, {how}, {name}"
            work = partial(time_trainer, config, examples, collator, rows, how == "compiled")
            results[name] = case(name, work)
    first = results.pop("mengya")
    for name, other in results.items():
        if first is not None and other is not None:
            print(f"    mengya is {first.speed / other.speed:.2f} x {name}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["64m"])
    parser.add_argument("--rows", type=int, help="64; 16 with the vocabulary of 151,669")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--warmup", type=int, default=6, help="steps that are not timed")
    parser.add_argument("--steps", type=int, default=6, help="of a window")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument(
        "--trainer",
        nargs="*",
        choices=("eager", "compiled"),
        default=["eager", "compiled"],
        help="which of the Trainer; nothing: ours alone",
    )
    parser.add_argument("--muon", action="store_true", help="also Muon and NorMuon")
    parser.add_argument("--fp8", action="store_true", help="also precision=fp8")
    parser.add_argument("--ablate", action="store_true", help="ours with one means less at a time")
    parser.add_argument("--cpu", action="store_true", help="only to see that all of it runs")
    options = parser.parse_args()
    if options.cpu:
        options.size, options.warmup, options.steps, options.windows = 128, 1, 1, 2
        options.trainer = ["eager"]
    quiet()
    device = init_device("cpu" if options.cpu else "auto")
    strategy = SingleDevice(Execution(device, pick_autocast_dtype("auto", device)))
    peak = matmul_peak(device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(f"{where}, torch {torch.__version__}, bf16 matmul {peak / 1e12:.0f} TFLOP/s", flush=True)
    for shape in options.shape:
        compare(shape, options, strategy, peak)


if __name__ == "__main__":
    main()

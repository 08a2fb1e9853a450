"""SFT and DPO speed and memory, ours and TRL's SFTTrainer and DPOTrainer, in one run on one device.

The same conversations of real lengths (tuning_data.py, at most 1,024 tokens), the same labels (answers
only), the same random weights, bf16, fused AdamW. Counted are real tokens through the policy, never
padding; DPO's reference adds none. Before a case is timed, its loss of a few conversations is compared
with ours of the same ones; more than bf16 explains fails it (SFT 0.2 %, where attention across
documents moves it by 0.4 %; DPO, whose sums over tokens amplify rounding, 2 %).

ours            documents packed into full rows, masked from each other (SFT 1,024, DPO 2,048), through
                shards, loader, loss and strategy as `mengya sft` and `mengya dpo` run them
TRL, padded     one conversation a row, padded to the longest of the batch; grouped: batches of similar
                length, which need less padding
TRL, packed     packing=True (bfd), documents masked from each other by SDPA's mask
TRL, leaking    packing=True (wrapped): attention crosses conversations, which is not the same function

TRL's gradient checkpointing, on by default, is off: it would only be slower.

usage: python benchmarks/tuning_speed.py [--shape 26m 64m] [--task sft dpo] [--compiled] [--cpu]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from our_step import next_token, real_tokens, steps_of, training_step
from peers import StepDone, clocked, common_arguments, quiet, stock_model, timed
from shapes import SHAPES
from timing import HEAD, Clock, Timing, attempt, line, time_steps
from torch import nn
from transformers import set_seed
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer
from tuning_data import Turn, dpo_columns, draw, packed_rows, sft_columns, tokenizer

from mengya.data.rows.loader import collate
from mengya.losses.dpo import DPO
from mengya.losses.token_nll import Loss, token_nll
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.runtime.device import init_device, pick_autocast_dtype
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution

LONGEST, VOCAB, CHECKED = 1024, 6400, 8
BETA = 0.1
TOLERANCE = {"sft": 0.002, "dpo": 0.02}  # of the loss
# Rows of ours, batches of TRL: the best of each counts.
OURS = {"sft": (64, 128), "dpo": (16, 32)}
# (name, batch sizes, settings): what TRL is given.
TRL: dict[str, list[tuple[str, tuple[int, ...], dict[str, Any]]]] = {
    "sft": [
        ("padded", (64, 256), {}),
        ("padded, grouped", (64, 256), {"train_sampling_strategy": "group_by_length"}),
        ("padded, compiled", (128,), {"torch_compile": True}),
        ("packed", (4, 16), {"packing": True, "packing_strategy": "bfd"}),
        ("leaking", (64,), {"packing": True, "packing_strategy": "wrapped"}),
        ("leaking, compiled", (64,), {"packing": True, "packing_strategy": "wrapped",
                                      "torch_compile": True}),
    ],
    "dpo": [
        ("padded", (16, 32, 64), {}),
        ("padded, compiled", (32,), {"torch_compile": True}),
    ],
}  # fmt: skip


class Task:
    """SFT or DPO of one shape: the data, and the weights that every case starts from."""

    def __init__(self, name: str, shape: str, strategy: SingleDevice, options: Any) -> None:
        self.name, self.strategy, self.options = name, strategy, options
        self.preference = name == "dpo"
        count = 64 if options.cpu else 2048 if self.preference else 8192
        self.turns = draw(count, options.longest, VOCAB, self.preference)
        # Large weights, so that a wrong mask shows in the loss.
        self.config = ModelConfig(
            vocab_size=VOCAB, max_position_embeddings=2048, initializer_range=0.05, **SHAPES[shape]
        )
        set_seed(0)
        self.weights = CausalLM(self.config)
        self.reference_weights = CausalLM(self.config)
        self.row_size = options.longest * (2 if self.preference else 1)

    def clock(self) -> Clock:
        options = self.options
        return Clock(self.strategy.device, options.warmup, options.steps, options.windows)

    def ours(self, compiled: bool) -> tuple[CausalLM, Loss]:
        """A fresh model and its loss, compiled as the stages do."""
        model = self._copy(self.weights)
        if not self.preference:
            loss: Loss = next_token(self.strategy, compiled)
        else:
            frozen = self._copy(self.reference_weights).eval().requires_grad_(False)
            if compiled:
                frozen.compile_layers()
            loss = DPO(
                reference=lambda batch: frozen(**batch.model_inputs()),
                beta=BETA,
                token_nll=torch.compile(token_nll) if compiled else token_nll,
            )
        if compiled:
            model.compile_layers()
        return model, loss

    def time_ours(self, rows: int) -> Timing:
        model, loss = self.ours(compiled=self.strategy.device.type == "cuda")
        step = training_step(model, loss, self.strategy)
        with tempfile.TemporaryDirectory() as folder:
            packed = packed_rows(self.turns, self.row_size, VOCAB, Path(folder))
            return time_steps(step, steps_of(packed, rows), real_tokens, self.clock())

    def loss_of(self, turns: Sequence[Turn]) -> float:
        """Our mean loss of these turns, packed."""
        model, loss = self.ours(compiled=False)
        with tempfile.TemporaryDirectory() as folder:
            packed = packed_rows(turns, self.row_size, VOCAB, Path(folder))
            batch = collate(
                [packed.stored_row(i) for i in range(len(packed))], packed.max_documents
            )
        with self.strategy.autocast():
            result = loss(model.train(), batch.to(self.strategy.device))
        return float(result.loss.detach()) / loss.items(batch)

    def time_trl(self, batch_size: int, settings: dict[str, Any]) -> Timing:
        set_seed(0)
        clock = self.clock()
        settings = {
            **common_arguments(clock), "per_device_train_batch_size": batch_size,
            "max_length": self.options.longest, "gradient_checkpointing": False, **settings,
        }  # fmt: skip
        common: dict[str, Any] = {
            "model": stock_model(self.config, self.weights),
            "processing_class": tokenizer(VOCAB),
            "callbacks": [StepDone(clock)],
        }
        if self.preference:
            trainer = clocked(DPOTrainer, clock)(
                ref_model=stock_model(self.config, self.reference_weights),
                args=DPOConfig(beta=BETA, **settings),
                train_dataset=Dataset.from_dict(dpo_columns(self.turns)),
                **common,
            )
        else:
            trainer = clocked(SFTTrainer, clock)(
                args=SFTConfig(completion_only_loss=True, **settings),
                train_dataset=Dataset.from_dict(sft_columns(self.turns)),
                **common,
            )
        if settings.get("packing_strategy") != "wrapped":
            self._check(trainer)
        return timed(trainer, clock)

    def _check(self, trainer: Any) -> None:
        """Compare the losses of the trainer's first examples.

        Raises:
            RuntimeError: when they differ by more than TOLERANCE.
        """
        examples = [trainer.train_dataset[i] for i in range(CHECKED)]
        inputs = trainer._prepare_inputs(trainer.data_collator(examples))
        trainer.model.to(self.strategy.device).train()
        with trainer.accelerator.autocast():
            theirs = float(trainer.compute_loss(trainer.model, inputs).detach())
        packing = getattr(trainer.args, "packing", False)
        turns = self._unpack(examples) if packing else self.turns[:CHECKED]
        mine = self.loss_of(turns)
        print(f"    loss of the same documents: TRL {theirs:.4f}, mengya {mine:.4f}", flush=True)
        if not abs(theirs - mine) <= TOLERANCE[self.name] * abs(mine):
            raise RuntimeError(f"the losses differ: {theirs} and {mine}")

    def _unpack(self, rows: Sequence[dict[str, Any]]) -> list[Turn]:
        """The documents of TRL's packed rows; an answer begins at the first label."""
        turns = []
        for row in rows:
            begin = 0
            for length in row["seq_lengths"]:
                ids, labels = (
                    torch.tensor(row[name][begin : begin + length]).numpy()
                    for name in ("input_ids", "labels")
                )
                prompt = int((labels != -100).argmax())
                turns.append(Turn(ids[:prompt], (ids[prompt:],)))
                begin += length
        return turns

    def _copy(self, weights: nn.Module) -> CausalLM:
        model = CausalLM(self.config)
        model.load_state_dict(weights.state_dict())
        return model.to(self.strategy.device)


def compare(task: Task, shape: str) -> None:
    """All cases of one task and shape, printed as they come."""
    print(
        f"\n{task.name}, {shape}, documents of at most {task.options.longest}\n{HEAD}", flush=True
    )

    def best(name: str, sizes: Sequence[int], work: Callable[[int], Timing]) -> Timing | None:
        found: list[Timing] = []
        for size in sizes:
            timing = attempt(f"{task.name} {shape}, {name}, {size}", partial(work, size))
            if timing is not None:
                print(line(f"{name}, batch {size}", timing), flush=True)
                found.append(timing)
        return max(found, key=lambda timing: timing.speed, default=None)

    cpu = task.options.cpu
    mine = best("mengya", (2,) if cpu else OURS[task.name], task.time_ours)
    others = {}
    for name, sizes, settings in TRL[task.name]:
        if "torch_compile" in settings and not task.options.compiled:
            continue
        work = partial(task.time_trl, settings=settings)
        others[name] = best(f"TRL, {name}", (2,) if cpu else sizes, work)
    for name, other in others.items():
        if mine is not None and other is not None:
            print(f"    mengya is {mine.speed / other.speed:.2f} x TRL, {name}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["26m", "64m"])
    parser.add_argument("--task", nargs="+", choices=TRL, default=["sft", "dpo"])
    parser.add_argument("--warmup", type=int, default=5, help="steps that are not timed")
    parser.add_argument("--steps", type=int, default=6, help="of a window")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument(
        "--compiled", action="store_true", help="also TRL with torch_compile (minutes)"
    )
    parser.add_argument("--cpu", action="store_true", help="only to see that all of it runs")
    options = parser.parse_args()
    options.longest = LONGEST
    if options.cpu:
        options.longest, options.warmup, options.steps, options.windows = 128, 1, 1, 2
    disable_progress_bar()
    quiet()
    device = init_device("cpu" if options.cpu else "auto")
    strategy = SingleDevice(Execution(device, pick_autocast_dtype("auto", device)))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(f"{where}, torch {torch.__version__}", flush=True)
    for shape in options.shape:
        for name in options.task:
            compare(Task(name, shape, strategy, options), shape)


if __name__ == "__main__":
    main()

"""One device and a compiled model of each shape, on which benchmarks/learning.py trains run after run.

The parts are those of `mengya pretrain`: data order, packing, loss, optimizers, schedule, strategy.
What is left out of the loop is what takes time and changes no weight: logs, samples, checkpoints.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from learning_plan import Run
from shapes import SHAPES
from torch import nn
from torch.optim import Optimizer

from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.datasets import PackedRows
from mengya.data.rows.loader import batches, validation_batches
from mengya.data.rows.mixture import Mixture
from mengya.data.shards import TokenShards
from mengya.kernels.cross_entropy import linear_nll
from mengya.losses.mean_loss import sum_loss
from mengya.losses.next_token import NextToken
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.fp8_layers import use_fp8
from mengya.runtime.device import init_device, pick_autocast_dtype
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution
from mengya.training.optim.build import build_optimizers, set_lr
from mengya.training.optim.config import OptimizerConfig
from mengya.training.schedule import ScheduleConfig, lr_factor

EVALUATIONS = 8  # of one run, the last at its end


class OutOfTime(Exception):
    """The limit would be passed."""


class Lab:
    """One device, the data, and a compiled model of each shape that every run starts from scratch."""

    def __init__(self, options: argparse.Namespace, worker: int) -> None:
        os.environ.setdefault("LOCAL_RANK", str(worker if torch.cuda.device_count() > 1 else 0))
        device = init_device("auto")
        self.strategy = SingleDevice(Execution(device, pick_autocast_dtype("auto", device)))
        self.compiled = device.type == "cuda"
        self.rows, self.size, self.out = options.rows, options.size, options.out
        self.deadline = time.monotonic() + options.limit_s
        train, held_out = (TokenShards(options.data / name) for name in ("train", "validation"))
        # One packing for all seeds, and one count of boundaries: shapes that change are compiled again.
        self.packed, self.held_out = (PackedRows(s, self.size) for s in (train, held_out))
        documents = max(self.packed.max_documents, self.held_out.max_documents)
        self.packed.max_documents = self.held_out.max_documents = documents
        self.characters = held_out.manifest["characters"]
        self.vocab_size = train.vocab_size
        self.loss = NextToken()
        if self.compiled:
            self.loss = NextToken(linear_nll=linear_nll)
        self.models: dict[tuple[str, bool], CausalLM] = {}
        self.speed: dict[str, float] = {}  # tokens per second, when known

    def model(self, run: Run) -> CausalLM:
        """The model of the run's shape and precision with the initial weights of its seed."""
        kind = run.shape, run.fp8
        config = ModelConfig(
            vocab_size=self.vocab_size, max_position_embeddings=self.size, **SHAPES[run.shape]
        )
        torch.manual_seed(run.seed)
        fresh = CausalLM(config)
        if kind not in self.models:
            self.models[kind] = fresh.to(self.strategy.device)
            if run.fp8:
                use_fp8(self.models[kind], self.strategy.device)
            if self.compiled:
                self.models[kind].compile_layers()
        else:
            self.models[kind].load_state_dict(fresh.state_dict())
        return self.models[kind]

    def train(self, run: Run) -> Iterator[dict[str, float]]:
        """Train; gives a line of results at every evaluation.

        Raises:
            OutOfTime: when it would not end before the limit.
        """
        steps = max(1, round(run.tokens / (self.rows * self.size)))
        model = self.model(run)
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

    def measure(self, run: Run, steps: int = 40) -> float:
        """Tokens per second of such a run once compiled."""
        run = replace(run, tokens=steps * self.rows * self.size)
        for _ in range(2):
            list(self.train(run))
        return self.speed[run.shape]

    def _batches(self, seed: int) -> Iterator[list[Any]]:
        rows = Mixture([(self.packed, None)], seed)
        return batches(
            rows, start_step=0, batch_size=BatchSize(self.rows), micro_batch_size=self.rows
        )

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

"""A trainer of a tiny model on random batches, some of which do harm."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mengya.batch import IGNORE_INDEX, Batch
from mengya.losses.next_token import NextToken
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.training.checkpoint.manager import CheckpointManager
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution
from mengya.training.optim.build import build_optimizers
from mengya.training.optim.config import OptimizerConfig
from mengya.training.run_config import LoopConfig
from mengya.training.schedule import ScheduleConfig
from mengya.training.state import TrainState
from mengya.training.telemetry.metrics import MetricsLog
from mengya.training.telemetry.progress import ProgressBar
from mengya.training.trainer import Data, Observer, Optimization, Trainer

VOCAB, ROWS, SIZE = 50, 2, 16


def tiny_model() -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(
        ModelConfig(
            vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1,
        )
    )  # fmt: skip


def random_batch(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, VOCAB, (ROWS, SIZE + 1), generator=generator)
    return Batch(
        input_ids=ids[:, :-1],
        labels=ids[:, 1:].clone(),
        position_ids=torch.arange(SIZE).expand(ROWS, SIZE),
        document_ids=torch.zeros(ROWS, SIZE, dtype=torch.int64),
        cu_seqlens=torch.tensor([0, SIZE, 2 * SIZE], dtype=torch.int32),
    )


def all_masked(batch: Batch) -> Batch:
    return dataclasses.replace(batch, labels=torch.full_like(batch.labels, IGNORE_INDEX))


class Poisoned(NextToken):
    """Next-token loss that is infinite when the first token of a batch is the last id."""

    def __call__(self, model, batch):
        result = super().__call__(model, batch)
        poison = float("inf") if int(batch.input_ids[0, 0]) == VOCAB - 1 else 1.0
        return result._replace(loss=result.loss * poison)


def make_trainer(run_dir: Path, model: CausalLM, data: list[Batch], **more: object) -> Trainer:
    def steps(start: int) -> Iterator[list[Batch]]:
        return ([batch] for batch in data[start:])

    optimizers = build_optimizers(model, OptimizerConfig(lr=1e-2))
    settings: dict[str, Any] = {
        "strategy": SingleDevice(Execution(torch.device("cpu"))),
        "loop": LoopConfig(log_every=1, save_every=4, max_skipped_in_a_row=3),
        "loss": Poisoned(),
        "batches": steps,
        "schedule": ScheduleConfig(),
        "max_steps": len(data),
        "write_model": write_model,
        "documents": lambda step: [],
        "resume": False,
        "flops_per_token": 0.0,
        "peak_flops": None,
    }
    assert more.keys() <= settings.keys()
    settings |= more
    strategy, loop = settings["strategy"], settings["loop"]
    progress = ProgressBar("test", settings["max_steps"], shown=strategy.rank == 0)
    checkpoints = CheckpointManager(
        run_dir,
        loop,
        strategy,
        model,
        optimizers,
        model_tensors=model.state_dict,
        write_model=settings["write_model"],
        read_model=lambda m, folder: m.load_state_dict(load_file(folder / "model.safetensors")),
        warn=progress.warn,
        documents=settings["documents"],
    )
    return Trainer(
        model=model,
        module=strategy.wrap(model, optimizers),
        loss=settings["loss"],
        data=Data(settings["batches"]),
        optimization=Optimization(optimizers, settings["schedule"], settings["max_steps"], 1.0),
        strategy=strategy,
        observer=Observer(
            progress,
            open_metrics=lambda step: MetricsLog(run_dir, step, [], {}),
            flops_per_token=settings["flops_per_token"],
            peak_flops=settings["peak_flops"],
        ),
        checkpoints=checkpoints,
        loop=loop,
        seed=0,
        run_dir=run_dir,
        state=checkpoints.resume() if settings["resume"] else TrainState(),
    )


def write_model(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file({name: t.clone() for name, t in tensors.items()}, folder / "model.safetensors")


def poisoned(batch: Batch) -> Batch:
    batch.input_ids[0, 0] = VOCAB - 1
    return batch

"""A training run with batches at known steps that spoil it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mengya.batch import Batch
from mengya.losses.next_token import NextToken
from mengya.models.causal_lm import CausalLM
from mengya.training.run_config import LoopConfig
from mengya.training.schedule import ScheduleConfig
from mengya.training.state import TrainState
from tests.helpers.tiny_trainer import (
    VOCAB,
    make_trainer,
    poisoned,
    random_batch,
    tiny_model,
)

FLAT = ScheduleConfig(name="constant", warmup_steps=0)
STEPS, BAD = 60, (41, 42, 43)  # positions: checkpoints are at 8, 16, ... 40


class Damaging(NextToken):
    """A loss that is not finite, or ten times as large, when the first token is the last id."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def __call__(self, model, batch):
        result = super().__call__(model, batch)
        marked = int(batch.input_ids[0, 0]) == VOCAB - 1
        return result._replace(loss=result.loss * (self.factor if marked else 1.0))


def planted(bad: tuple[int, ...] = BAD) -> list[Batch]:
    batches = []
    for step in range(STEPS):
        batch = random_batch(step)
        batch.input_ids[0, 0] = 0
        batches.append(poisoned(batch) if step in bad else batch)
    return batches


def train(
    run_dir: Path, data: list[Batch], factor: float, **more: Any
) -> tuple[CausalLM, TrainState]:
    model = tiny_model()
    loop = LoopConfig(
        **{
            "log_every": 1,
            "save_every": 8,
            "max_skipped_in_a_row": 3,
            "spike_steps": 3,
            **more.pop("loop", {}),
        }
    )
    trainer = make_trainer(
        run_dir, model, data, loss=Damaging(factor), schedule=FLAT, loop=loop, **more
    )
    trainer.fit()
    return model, trainer.state

"""Which checkpoint `best` points to when a validation loss is no number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mengya.batch import Batch
from mengya.losses.next_token import NextToken
from mengya.training.trainer import Data
from tests.helpers.tiny_trainer import VOCAB, make_trainer, random_batch, tiny_model


class NotANumber(NextToken):
    """Next-token loss that is NaN when the first token of a batch is the last id."""

    def __call__(self, model, batch):
        result = super().__call__(model, batch)
        bad = int(batch.input_ids[0, 0]) == VOCAB - 1
        metrics = {name: value * (math.nan if bad else 1) for name, value in result.metrics.items()}
        return result._replace(metrics=metrics)


@pytest.mark.parametrize("earlier", [None, math.nan], ids=["new", "stored-by-an-earlier-version"])
def test_a_validation_of_nan_is_not_the_best(tmp_path: Path, earlier: float | None) -> None:
    data = [random_batch(step) for step in range(12)]
    trainer = make_trainer(tmp_path, tiny_model(), data, loss=NotANumber())
    trainer.state.best_loss = earlier
    seen = []

    def validation() -> Iterator[Batch]:
        batch = random_batch(100)
        first = batch.input_ids.clone()
        if not seen:  # the validation at step 4
            first[0, 0] = VOCAB - 1
        seen.append(torch.equal(first, batch.input_ids))
        yield Batch(first, batch.labels, batch.position_ids, batch.document_ids, batch.cu_seqlens)

    trainer.data = Data(trainer.data.batches, validation)
    trainer.fit()
    assert seen == [False, True, True]
    best = (tmp_path / "checkpoints/best").readlink().name
    assert best in ("step-000008", "step-000012")
    assert math.isfinite(trainer.state.best_loss or math.nan)

"""After training and resuming, a saved model has the loss that the run measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mengya.data.rows.datasets import PackedRows
from mengya.data.rows.loader import validation_batches
from mengya.data.shards import TokenShards
from mengya.losses.mean_loss import sum_loss
from mengya.losses.next_token import NextToken
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.stages import pretrain
from mengya.stages.pretrain import PretrainConfig
from tests.helpers.stage_fixtures import MODEL, StageFixtures

PAIRS = 4  # hidden 32, 4 heads
ORIGINAL = {"original_max_position_embeddings": 64}
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, **ORIGINAL},
    "longrope": {"long_factor": [1.0, 2.0, 3.0, 4.0], "short_factor": [1.0] * PAIRS, **ORIGINAL},
    "clex": {"factor": 4.0, **ORIGINAL},
}


def last_validation(run_dir: Path) -> float:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["validation/nll"] for line in lines if "validation/nll" in line][-1]


@pytest.mark.parametrize("start", ["model", "stretch"])
@pytest.mark.parametrize("rope_type", ROPES)
def test_the_saved_model_has_the_loss_that_the_run_measured(
    fixtures: StageFixtures, tmp_path: Path, rope_type: str, start: str
) -> None:
    context = 64 if rope_type == "dynamic" else 256
    positions = {
        "max_position_embeddings": context,
        "rope_parameters": {"rope_type": rope_type, **ROPES[rope_type]},
    }
    more: dict[str, Any] = {"init_from": fixtures.base, "stretch": positions}
    if start == "model":
        more = {"model": {**MODEL, "vocab_size": 400, **positions}}
    settings = fixtures.settings("text", tmp_path / "run", max_steps=1, **more)
    pretrain.run(PretrainConfig(**settings))
    pretrain.run(PretrainConfig(**{**settings, "resume": True, "max_steps": 2}))
    measured = last_validation(tmp_path / "run")

    folder = tmp_path / "run/checkpoints/latest"
    model = load_causal_lm(folder).eval()
    rows = PackedRows(TokenShards(fixtures.shards["text"][1]), 128)
    batches = validation_batches(rows, 2)
    sums, items = sum_loss(model, NextToken(), batches, torch.device("cpu"))
    assert sums["nll"] / items == pytest.approx(measured, abs=1e-5)
    if rope_type != "clex":
        theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
        ids = torch.randint(
            model.config.vocab_size, (1, 100), generator=torch.Generator().manual_seed(0)
        )
        with torch.no_grad():
            torch.testing.assert_close(
                theirs.eval()(ids).logits, model(ids).head_output, atol=1e-4, rtol=1e-3
            )

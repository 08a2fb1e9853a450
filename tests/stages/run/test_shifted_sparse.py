"""Shifted sparse attention belongs to the run, not to the model that it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mengya.config import load_config
from mengya.errors import UserError
from mengya.runtime.jsonl import read_steps
from mengya.stages import pretrain
from mengya.stages.dpo import DpoConfig
from mengya.stages.pretrain import PretrainConfig
from tests.helpers.stage_fixtures import StageFixtures


def test_it_changes_training_and_leaves_validation_and_the_folder_alone(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    runs = {}
    for name, ratio in (("full", None), ("sparse", 0.03125)):  # groups of 4 of 128 positions
        settings = fixtures.settings(
            "text", tmp_path / name, max_steps=1, init_from=fixtures.base, shifted_sparse_ratio=ratio,
            optimizer={"lr": 1e-12},
        )  # fmt: skip
        assert pretrain.run(PretrainConfig(**settings))
        runs[name] = list(read_steps(tmp_path / name / "metrics.jsonl"))
        saved = json.loads((tmp_path / name / "checkpoints/latest/config.json").read_text())
        assert not [key for key in saved if "shift" in key or "sparse" in key]

    def value(name: str, key: str) -> float:
        return next(m[key] for m in runs[name] if key in m)

    assert value("full", "loss") != value("sparse", "loss")
    assert value("full", "validation/nll") == pytest.approx(
        value("sparse", "validation/nll"), abs=1e-6
    )


def test_dpo_refuses_it(fixtures: StageFixtures, tmp_path: Path) -> None:
    text = json.dumps(
        fixtures.settings("preference", tmp_path / "x", shifted_sparse_ratio=0.25), default=str
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(UserError, match="less than its reference"):
        load_config(DpoConfig, recipe)

"""Wherever a checkpoint is named the folder of its run may be named, also of a copy without links."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mengya.errors import UserError
from mengya.models.hf.open_checkpoint import find_checkpoint
from mengya.planning.inputs import Hardware
from mengya.stages import dpo, merge, plan, pretrain, sft
from mengya.stages.dpo import DpoConfig
from mengya.stages.merge import MergeConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.sft import SftConfig
from tests.helpers.stage_fixtures import MODEL, StageFixtures

SHORT: dict[str, Any] = {"max_steps": 1}


@pytest.fixture(scope="module")
def trained(fixtures: StageFixtures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, copied as a copy program does that follows links."""
    runs = tmp_path_factory.mktemp("runs")
    model = {**MODEL, "vocab_size": 400}
    settings = fixtures.settings("text", runs / "base", model=model, **SHORT)
    pretrain.run(PretrainConfig(**settings))
    settings = fixtures.settings("conversation", runs / "lora", lora={}, **SHORT)
    sft.run(SftConfig(**{**settings, "init_from": runs / "base"}))
    return Path(shutil.copytree(runs, runs.with_name("copied")))


def test_every_stage_starts_from_a_run(
    fixtures: StageFixtures, trained: Path, tmp_path: Path
) -> None:
    text = fixtures.settings("text", tmp_path / "more", init_from=trained / "base", **SHORT)
    assert pretrain.run(PretrainConfig(**text))
    pairs = fixtures.settings("preference", tmp_path / "dpo", **SHORT)
    assert dpo.run(DpoConfig(**{**pairs, "init_from": trained / "base"}))
    overrides = [f"init_from={trained / 'base'}", "run_dir=x", "max_steps=1", "device=cpu"]
    overrides.append(f"data.train={fixtures.shards['conversation'][0]}")
    estimate = plan.make_plan(None, overrides, Hardware(), "sft")
    assert estimate.model.config.hidden_size == 32


def test_merge_takes_runs(trained: Path, tmp_path: Path) -> None:
    merge.run(MergeConfig(checkpoint=trained / "lora", base=trained / "base", out=tmp_path / "out"))
    assert find_checkpoint(tmp_path / "out") == tmp_path / "out"
    with pytest.raises(UserError, match="not a LoRA adapter"):
        merge.run(MergeConfig(checkpoint=trained / "base", out=tmp_path / "no"))
    with pytest.raises(UserError, match=r"base=.* is a LoRA adapter itself"):
        merge.run(
            MergeConfig(checkpoint=trained / "lora", base=trained / "lora", out=tmp_path / "no")
        )


def test_an_adapter_is_not_trained_on(
    fixtures: StageFixtures, trained: Path, tmp_path: Path
) -> None:
    settings = fixtures.settings("conversation", tmp_path / "x", **SHORT)
    with pytest.raises(UserError, match=r"merge it first: mengya merge \S+best out=FOLDER"):
        sft.run(SftConfig(**{**settings, "init_from": trained / "lora"}))


def test_a_path_that_does_not_exist_is_said_to_be_so(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    settings = fixtures.settings("conversation", tmp_path / "x", **SHORT)
    with pytest.raises(UserError, match=r"checkpoint folder \S+nothing does not exist"):
        sft.run(SftConfig(**{**settings, "init_from": tmp_path / "nothing"}))

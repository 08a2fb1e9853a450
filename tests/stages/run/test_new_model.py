"""A new model: as many rows as its tokenizer has ids, and a router that the loss reaches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mengya.config import load_config, save_config
from mengya.errors import UserError
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.models.hf.config import load_model_config
from mengya.planning.lint import lint_plan
from mengya.stages import pretrain
from mengya.stages.plan import make_plan
from mengya.stages.pretrain import PretrainConfig
from mengya.tokenizer.load import load_tokenizer
from tests.helpers.stage_fixtures import MODEL, StageFixtures

TOP_1: dict[str, Any] = {
    **MODEL, "num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 32,
}  # fmt: skip
SHORT: dict[str, Any] = {"max_steps": 2}


def rules(recipe: Path, overrides: list[str]) -> dict[str, str]:
    return {w.rule: w.message for w in lint_plan(make_plan(recipe, overrides, verb="pretrain"))}


def test_the_vocabulary_follows_the_tokenizer_and_a_larger_one_is_said(
    fixtures: StageFixtures, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ids = len(load_tokenizer(fixtures.tokenizer))
    settings = fixtures.settings("text", tmp_path / "run", model=MODEL, **SHORT)
    config = PretrainConfig(**settings)
    assert pretrain.run(config)
    assert load_model_config(tmp_path / "run/checkpoints/latest").vocab_size == ids
    saved = load_config(PretrainConfig, tmp_path / "run/config.yaml").model
    assert saved is not None and saved.vocab_size == ids
    assert pretrain.run(PretrainConfig(**{**settings, "resume": True, "max_steps": 3}))
    assert "no token's" not in capfd.readouterr().err

    larger = {**settings, "run_dir": tmp_path / "larger", "model": {**MODEL, "vocab_size": ids + 7}}
    assert pretrain.run(PretrainConfig(**larger))
    said = " ".join(capfd.readouterr().err.split())
    assert f"7 rows more than the tokenizer has ids ({ids})" in said
    # As a run of an earlier version, whose recipe had no vocab_size and took another default.
    again = {**larger, "model": MODEL, "resume": True, "max_steps": 3}
    assert pretrain.run(PretrainConfig(**again))
    assert load_model_config(tmp_path / "larger/checkpoints/latest").vocab_size == ids + 7


def test_a_plan_counts_the_rows_of_the_tokenizer(fixtures: StageFixtures, tmp_path: Path) -> None:
    ids = len(load_tokenizer(fixtures.tokenizer))
    settings = fixtures.settings("text", tmp_path / "run", model={**MODEL, "vocab_size": ids})
    save_config(PretrainConfig(**settings), tmp_path / "pretrain.yaml")
    text = (tmp_path / "pretrain.yaml").read_text()
    (tmp_path / "pretrain.yaml").write_text(re.sub(r"  vocab_size: \d+\n", "", text))
    assert make_plan(tmp_path / "pretrain.yaml", []).model.config.vocab_size == ids
    assert "unused_rows" not in rules(tmp_path / "pretrain.yaml", [])
    more = rules(tmp_path / "pretrain.yaml", [f"model.vocab_size={ids + 100}"])
    assert (
        "100 rows more" in more["unused_rows"] and f"{100 * 32:,} parameters" in more["unused_rows"]
    )


def test_a_router_without_a_gradient_is_refused_and_the_remedy_gives_it_one(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    settings = fixtures.settings("text", tmp_path / "run", model=TOP_1, **SHORT)
    save_config(PretrainConfig(**{**settings, "resume": True}), tmp_path / "pretrain.yaml")
    for build in (
        lambda more: load_config(PretrainConfig, tmp_path / "pretrain.yaml", more),
        lambda more: make_plan(tmp_path / "pretrain.yaml", more),
    ):
        with pytest.raises(UserError, match="has no gradient") as refused:
            build(["resume=false"])
    (remedy,) = re.findall(r"write (model\.\S+=\w+)", str(refused.value))
    run = ["resume=false", remedy, "model.router_aux_loss_coef=0", "optimizer.weight_decay=0"]
    assert pretrain.run(load_config(PretrainConfig, tmp_path / "pretrain.yaml", run))
    name = "model.layers.0.mlp.gate.weight"
    run += [f"run_dir={tmp_path / 'still'}", "optimizer.lr=1e-12"]
    assert pretrain.run(load_config(PretrainConfig, tmp_path / "pretrain.yaml", run))
    trained, start = (
        load_causal_lm(tmp_path / run_dir / "checkpoints/latest").get_parameter(name)
        for run_dir in ("run", "still")
    )
    assert (trained - start).abs().max() > 1e-5


def test_a_run_of_an_earlier_version_with_such_a_router_is_resumed_with_a_warning(
    fixtures: StageFixtures, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = fixtures.settings("text", tmp_path / "run", model=TOP_1, resume=True, **SHORT)
    pretrain.run(PretrainConfig(**settings))
    capfd.readouterr()
    recipe = tmp_path / "run/config.yaml"
    assert pretrain.run(load_config(PretrainConfig, recipe, ["resume=true", "max_steps=3"]))
    assert "the router has no gradient" in " ".join(capfd.readouterr().err.split())
    folder = tmp_path / "run/checkpoints/latest"
    text = fixtures.settings("text", tmp_path / "next", init_from=folder)
    save_config(PretrainConfig(**text), tmp_path / "pretrain.yaml")
    assert "has no gradient" in rules(tmp_path / "pretrain.yaml", [])["router"]

"""A trained model continues with a longer context, and the recipe for it says what the loader takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mengya.config import load_config
from mengya.errors import UserError
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.models.hf.config import load_model_config
from mengya.models.hf.open_checkpoint import standard_folder
from mengya.stages import merge, pretrain
from mengya.stages.evaluate import EvaluateConfig
from mengya.stages.merge import MergeConfig
from mengya.stages.pretrain import PretrainConfig
from tests.helpers.stage_fixtures import StageFixtures

RECIPE = Path(__file__).parents[2] / "recipes/long-context"
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}


def test_the_saved_folder_has_the_new_positions(fixtures: StageFixtures, tmp_path: Path) -> None:
    stretch = {"max_position_embeddings": 1024, "rope_parameters": YARN}
    settings = fixtures.settings(
        "text", tmp_path / "run", init_from=fixtures.base, stretch=stretch, max_steps=2
    )
    assert pretrain.run(PretrainConfig(**settings))
    saved = load_model_config(tmp_path / "run/checkpoints/latest")
    before = load_model_config(fixtures.base)
    assert saved.max_position_embeddings == 1024 and saved.rope_parameters.factor == 4
    assert saved.model_copy(
        update={
            name: getattr(before, name)
            for name in ("max_position_embeddings", "rope_parameters", "training_sequence_length")
        }
    ) == before  # fmt: skip
    with pytest.raises(UserError, match="stretch: was"):
        pretrain.run(
            PretrainConfig(**{**settings, "stretch": None, "resume": True, "max_steps": 3})
        )
    assert pretrain.run(PretrainConfig(**{**settings, "resume": True, "max_steps": 3}))


def test_clex_is_trained_resumed_and_frozen_for_other_tools(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    clex = {"rope_type": "clex", "factor": 4.0, "original_max_position_embeddings": 32}
    stretch = {"max_position_embeddings": 128, "rope_parameters": clex}
    settings = fixtures.settings(
        "text", tmp_path / "run", init_from=fixtures.base, stretch=stretch, max_steps=3
    )
    assert pretrain.run(PretrainConfig(**settings))
    assert pretrain.run(PretrainConfig(**{**settings, "resume": True, "max_steps": 4}))
    model = load_causal_lm(tmp_path / "run/checkpoints/latest").eval()
    rope = model.model.learned_rope
    assert rope is not None and rope.get_parameter("down_proj").abs().max() > 0
    with (
        pytest.raises(UserError, match=r"mengya merge .* out=FOLDER factor=4"),
        standard_folder(tmp_path / "run"),
    ):
        pass
    out = tmp_path / "frozen"
    merge.run(MergeConfig(checkpoint=tmp_path / "run", out=out, factor=4))
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(out)
    ids = torch.arange(100)[None]
    torch.testing.assert_close(theirs(ids).logits, model(ids).head_output, atol=2e-5, rtol=1e-4)
    with standard_folder(out) as folder:
        assert folder == out
    with pytest.raises(UserError, match="not a LoRA adapter"):
        merge.run(MergeConfig(checkpoint=tmp_path / "run/checkpoints/latest", out=tmp_path / "x"))


def test_what_cannot_be_extended_is_refused(fixtures: StageFixtures, tmp_path: Path) -> None:
    settings = fixtures.settings("text", tmp_path / "run", init_from=fixtures.base)
    too_short = {"max_position_embeddings": 128, "rope_parameters": YARN}
    with pytest.raises(UserError, match="write max_position_embeddings=1024"):
        pretrain.run(PretrainConfig(**{**settings, "stretch": too_short}))
    values = {**settings, "init_from": None, "model": {"vocab_size": 400}, "stretch": too_short}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(values, default=str))
    with pytest.raises(UserError, match="stretch changes a trained model: give init_from"):
        load_config(PretrainConfig, recipe)


def test_the_recipe_is_one() -> None:
    config = load_config(PretrainConfig, RECIPE / "stretch.yaml")
    assert config.stretch is not None
    assert config.data.sequence_length == config.stretch.max_position_embeddings == 4096
    evaluated = load_config(EvaluateConfig, RECIPE / "evaluate.yaml")
    assert evaluated.passkey is not None and evaluated.positions == max(evaluated.passkey.lengths)

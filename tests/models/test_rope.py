"""Every scaling of the positions against transformers, on texts inside and beyond the trained context."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mengya.config import load_config
from mengya.errors import UserError
from mengya.models.cache.kv import KVCache
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from mengya.models.hf.config import load_model_config
from mengya.models.rope import rotary_angles
from tests.helpers.oracle import assert_near, oracle_of
from tests.helpers.random_model import random_model, tiny_config
from tests.helpers.rope_scalings import SCALINGS, TRAINED, YARN

LONG = 60


@pytest.fixture(params=SCALINGS)
def scaling(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SCALINGS[request.param]


@pytest.fixture
def config(family: str, scaling: dict[str, Any]) -> ModelConfig:
    if scaling.get("rope_type") == "longrope":  # one number for each pair that this family turns
        pairs = tiny_config(family).rotary_width // 2
        lists = {
            "long_factor": [1.0 + i for i in range(pairs)],
            "short_factor": [1.0 + i / 9 for i in range(pairs)],
        }
        scaling = {**scaling, **lists}
    # The longest context that the type is meant for; dynamic NTK counts from the trained one.
    longest = TRAINED if scaling.get("rope_type") == "dynamic" else 64
    return tiny_config(family, rope_parameters=scaling, max_position_embeddings=longest)


def ids_of(length: int) -> torch.Tensor:
    return torch.randint(101, (2, length), generator=torch.Generator().manual_seed(length))


@torch.no_grad()
@pytest.mark.parametrize("length", [TRAINED - 4, TRAINED, LONG])
def test_logits_equal_transformers(model: CausalLM, oracle: Any, length: int) -> None:
    ids = ids_of(length)
    assert_near(model(ids).head_output, oracle(ids).logits)


@torch.no_grad()
def test_cached_decode_beyond_the_trained_context_equals_transformers(
    model: CausalLM, oracle: Any
) -> None:
    cache, past = KVCache(model.config.num_hidden_layers), None
    for chunk in ids_of(LONG).split([10, *[1] * 30, 20], dim=1):
        ours = model.decode(chunk, cache)
        theirs = oracle(chunk, past_key_values=past, use_cache=True)
        past = theirs.past_key_values
        assert_near(ours, theirs.logits)


@torch.no_grad()
def test_folders_keep_the_scaling_both_ways(model: CausalLM, oracle: Any, tmp_path: Path) -> None:
    ids = ids_of(LONG)
    expected = model(ids).head_output
    save_hf_folder(model, model.config, tmp_path / "ours")
    assert load_model_config(tmp_path / "ours") == model.config
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert_near(loaded.eval()(ids).logits, expected)
    oracle.save_pretrained(tmp_path / "theirs")
    assert_near(load_causal_lm(tmp_path / "theirs").eval()(ids).head_output, expected)


def test_a_4x_folder_with_rope_scaling_is_read(model: CausalLM, tmp_path: Path) -> None:
    save_hf_folder(model, model.config, tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    assert values["rope_theta"] == 5000.0
    del values["rope_parameters"]
    if "rope_scaling" in values:
        values["rope_scaling"]["type"] = values["rope_scaling"].pop("rope_type")  # older still
    path.write_text(json.dumps(values))
    assert load_model_config(tmp_path) == model.config


def test_writing_the_scaling_into_a_trained_folder_stretches_it(tmp_path: Path) -> None:
    model = random_model(tiny_config("Qwen3", max_position_embeddings=TRAINED))
    save_hf_folder(model, model.config, tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    del values["rope_theta"]
    values["rope_parameters"] = {**YARN, "rope_theta": 5000.0}
    path.write_text(json.dumps({**values, "max_position_embeddings": 64}))
    extended = load_causal_lm(tmp_path).eval()
    expected = random_model(tiny_config("Qwen3", rope_parameters=YARN))
    ids = ids_of(LONG)
    assert_near(extended(ids).head_output, expected(ids).head_output)
    assert (extended(ids).head_output - model(ids).head_output).abs().max() > 1e-2


@torch.no_grad()
def test_dynamic_ntk_forgets_a_longer_text_and_transformers_does_not() -> None:
    """The one difference: ours depends on this input alone, theirs on the longest since a short one."""
    model = random_model(
        tiny_config("Qwen3", rope_parameters=SCALINGS["dynamic"], max_position_embeddings=TRAINED)
    )
    fresh = oracle_of(model)
    used = copy.deepcopy(fresh)
    used(ids_of(LONG))
    ids = ids_of(TRAINED + 4)
    assert_near(model(ids).head_output, fresh(ids).logits)
    assert (used(ids).logits - fresh(ids).logits).abs().max() > 1e-3


def test_fast_pairs_keep_their_frequency_under_yarn_and_slow_ones_are_divided() -> None:
    plain = tiny_config("Llama", head_dim=64)
    yarn = tiny_config(
        "Llama", head_dim=64, max_position_embeddings=4096,
        rope_parameters={**YARN, "original_max_position_embeddings": 1024},
    )  # fmt: skip
    one = torch.tensor([[1]])

    def frequencies(config: ModelConfig) -> torch.Tensor:
        cos, sin = rotary_angles(one, config)
        return torch.atan2(sin, cos).flatten()

    ratio = frequencies(yarn) / frequencies(plain)
    assert ratio[0].item() == pytest.approx(1) and ratio[-1].item() == pytest.approx(1 / 4)
    assert (ratio.diff() <= 1e-6).all()
    cos, sin = rotary_angles(one, yarn)
    torch.testing.assert_close(cos**2 + sin**2, torch.full_like(cos, (0.1 * 1.3862944 + 1) ** 2))


def test_the_context_of_dynamic_ntk_is_the_trained_one_times_factor() -> None:
    assert tiny_config("Qwen3", rope_parameters=SCALINGS["dynamic"]).context_length == 3 * 64
    assert tiny_config("Qwen3", rope_parameters=SCALINGS["linear"]).context_length == 64


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["rope_type=linear"], "rope_type=linear needs factor"),
        (["factor=2"], "write rope_parameters.rope_type=linear"),
        (["rope_type=yarn", "factor=2"], "needs original_max_position_embeddings"),
        (["rope_type=linear", "factor=2", "beta_fast=16"], "beta_fast does nothing"),
        (["rope_type=linear", "factor=0.5"], "factor"),
        (["rope_theta=1e6"], "write model.rope_theta"),
        (["partial_rotary_factor=0.5"], "partial_rotary_factor=0.5"),
        (
            ["rope_type=yarn", "factor=4", "original_max_position_embeddings=4096"],
            "write max_position_embeddings=16384",
        ),
        (
            ["rope_type=yarn", "factor=4", "original_max_position_embeddings=64", "beta_slow=32"],
            "beta_fast=32.0 must be more",
        ),
        (["rope_type=llama3"], "'default', 'linear', 'dynamic', 'yarn', 'longrope' or 'clex'"),
        (["rope_type=clex", "factor=4"], "needs original_max_position_embeddings"),
        (["rope_type=longrope", "original_max_position_embeddings=64"], "needs long_factor"),
    ],
)
def test_impossible_scalings_are_refused(overrides: list[str], reason: str) -> None:
    with pytest.raises(UserError) as refused:
        load_config(ModelConfig, None, [f"rope_parameters.{text}" for text in overrides])
    assert reason in str(refused.value)

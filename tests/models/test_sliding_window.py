"""Layers with a sliding window against transformers, and what the window hides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mengya.config import load_config
from mengya.errors import UserError
from mengya.generation.batch.engine import BatchEngine
from mengya.generation.batch.request import EngineConfig
from mengya.models.cache.kv import KVCache
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from mengya.models.hf.config import load_model_config
from tests.helpers.oracle import assert_near
from tests.helpers.packed_row import packed_row
from tests.helpers.random_model import random_model, tiny_config

WINDOW, S = 5, 24
IDS = torch.randint(101, (3, S), generator=torch.Generator().manual_seed(7))


@pytest.fixture(params=["Qwen3", "Qwen2"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[0, 1])
def full_layers(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def config(family: str, full_layers: int) -> ModelConfig:
    return tiny_config(family, sliding_window=WINDOW, max_window_layers=full_layers)


@pytest.fixture
def oracle(model: CausalLM, family: str) -> Any:
    """transformers' class from its own words for the window."""
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim",
        "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings",
        "max_position_embeddings", "sliding_window", "max_window_layers",
    )  # fmt: skip
    values = {name: getattr(model.config, name) for name in names}
    values["rope_parameters"] = {"rope_type": "default", "rope_theta": model.config.rope_theta}
    stock = getattr(transformers, f"{family}Config")(use_sliding_window=True, **values)
    theirs = getattr(transformers, f"{family}ForCausalLM")(stock)
    theirs.load_state_dict(model.state_dict())
    return theirs.eval()


@torch.no_grad()
def test_logits_equal_transformers(model: CausalLM, oracle: Any) -> None:
    ours = model(IDS).head_output
    assert_near(ours, oracle(IDS).logits)
    all_seen = random_model(tiny_config("Qwen3" if model.config.qk_norm else "Qwen2"))
    assert_near(all_seen(IDS[:, :WINDOW]).head_output, ours[:, :WINDOW])
    assert (all_seen(IDS).head_output - ours)[:, WINDOW:].abs().max() > 1e-2


@torch.no_grad()
def test_cached_decode_equals_transformers(model: CausalLM, oracle: Any) -> None:
    cache, past = KVCache(2), None
    for chunk in IDS.split([3, *[1] * 8, 9, *[1] * 4], dim=1):
        out = oracle(chunk, past_key_values=past, use_cache=True)
        past = out.past_key_values
        assert_near(model.decode(chunk, cache), out.logits)


@torch.no_grad()
def test_left_padded_rows_equal_the_rows_alone(model: CausalLM) -> None:
    padding = torch.tensor([0, 4, 9])
    cache = KVCache(2, left_padding=padding)
    parts = [model.decode(chunk, cache) for chunk in IDS.split([20, 1, 1, 1, 1], dim=1)]
    for row, pad in enumerate(padding.tolist()):
        alone = model(IDS[row : row + 1, pad:]).head_output
        assert_near(torch.cat(parts, 1)[row : row + 1, pad:], alone)


@torch.no_grad()
def test_packed_documents_equal_transformers_on_each(model: CausalLM, oracle: Any) -> None:
    lengths = (13, 2, 7)
    packed = model(IDS[:1], **packed_row(lengths, S)).head_output
    start = 0
    for length in lengths:
        alone = oracle(IDS[:1, start : start + length]).logits
        assert_near(packed[:, start : start + length], alone)
        start += length


@torch.no_grad()
def test_folders_keep_the_window_both_ways(model: CausalLM, oracle: Any, tmp_path: Path) -> None:
    expected = model(IDS).head_output
    save_hf_folder(model, model.config, tmp_path / "ours")
    assert load_model_config(tmp_path / "ours") == model.config
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert_near(loaded.eval()(IDS).logits, expected)
    oracle.save_pretrained(tmp_path / "theirs")
    assert load_model_config(tmp_path / "theirs") == model.config
    assert_near(load_causal_lm(tmp_path / "theirs").eval()(IDS).head_output, expected)


def test_windows_of_other_layers_are_refused(model: CausalLM, tmp_path: Path) -> None:
    import json

    save_hf_folder(model, model.config, tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    values["layer_types"] = ["sliding_attention", "full_attention"]
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"layer_types=\['sliding_attention', 'full_attention'\]"):
        load_model_config(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["max_window_layers=1"], "does nothing without sliding_window"),
        (["sliding_window=8", "max_window_layers=8"], "leaves none of the 8 layers"),
        (["sliding_window=8", "qk_norm=false"], "this shape is a llama"),
        (["sliding_window=8", "num_experts=4"], "this shape is a qwen3_moe"),
    ],
)
def test_impossible_windows_are_refused(overrides: list[str], reason: str) -> None:
    with pytest.raises(UserError) as refused:
        load_config(ModelConfig, None, overrides)
    assert reason in str(refused.value)


def test_the_batch_engine_refuses_a_window(model: CausalLM) -> None:
    with pytest.raises(UserError, match="not to sliding_window=5; `mengya chat`"):
        BatchEngine(model, EngineConfig())

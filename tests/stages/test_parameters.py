"""Every preset has the size that it is named for: counts worked out by hand, and transformers' own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mengya.config import load_config
from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from mengya.models.hf.config import config_to_hf
from mengya.stages.parameters import measure
from mengya.stages.pretrain import PretrainConfig

ROOT = Path(__file__).parents[2]
# total, active, embedding, KV cache in bytes a token: embedding + layers * (attention + norms +
# feed-forward) + last norm, worked out with shell arithmetic from the shapes.
EXPECTED = {
    "mini": (1_795_584, 1_795_584, 614_400, 3 * 2 * 2 * 32 * 2),
    "zh-26m": (25_830_912, 25_830_912, 3_276_800, 8 * 2 * 2 * 64 * 2),
    "zh-64m": (63_912_192, 63_912_192, 4_915_200, 8 * 2 * 4 * 96 * 2),
    "zh-198m-moe": (198_416_640, 63_936_768, 4_915_200, 8 * 2 * 4 * 96 * 2),
    "zh-104m": (104_034_048, 104_034_048, 4_915_200, 16 * 2 * 2 * 96 * 2),
    "buddy-0.1b": (158_974_464, 158_974_464, 116_481_792, 8 * 2 * 8 * 48 * 2),
    "buddy-0.3b": (381_900_800, 381_900_800, 155_309_056, 24 * 2 * 8 * 64 * 2),
    "buddy-0.7b": (690_153_216, 407_037_696, 232_963_584, 24 * (16 + 24) * 2),
    "buddy-0.8b": (803_546_880, 407_185_152, 232_963_584, 24 * (16 + 24) * 2),
    "buddy-0.85b": (848_722_304, 320_240_000, 155_309_056, 12 * (16 + 16) * 2),
    "tinyllm-108m": (108_749_568, 108_749_568, 4_915_200, 16 * 2 * 8 * 48 * 2),
    "mateconv-27m": (26_878_464, 26_878_464, 3_276_800, 8 * 2 * 8 * 32 * 2),
    "mateconv-96m-moe": (96_104_960, 61_501_952, 3_276_800, 8 * 2 * 8 * 32 * 2),
    "bumblebee-0.5b": (494_032_768, 494_032_768, 136_134_656, 24 * 2 * 2 * 64 * 2),
    "bumblebee-1.5b": (1_543_714_304, 1_543_714_304, 233_373_696, 28 * 2 * 2 * 128 * 2),
    "bumblebee-3b": (3_085_938_688, 3_085_938_688, 311_164_928, 36 * 2 * 2 * 128 * 2),
    "bumblebee-7b": (7_615_616_512, 7_615_616_512, 1_089_994_752, 28 * 2 * 4 * 128 * 2),
    "bumblebee-14b": (14_770_033_664, 14_770_033_664, 1_557_135_360, 48 * 2 * 8 * 128 * 2),
    "bumblebee-32b": (32_763_876_352, 32_763_876_352, 1_557_135_360, 64 * 2 * 8 * 128 * 2),
    "bumblebee-72b": (72_706_203_648, 72_706_203_648, 2_491_416_576, 80 * 2 * 8 * 128 * 2),
    "baby-llama-391m": (391_202_816, 391_202_816, 66_348_032, 28 * 2 * 8 * 64 * 2),
    "baby-llama-538m": (538_407_936, 538_407_936, 99_522_048, 18 * 2 * 2 * 128 * 2),
    "baby-llama-36m": (35_791_360, 35_791_360, 10_485_760, 8 * 2 * 8 * 64 * 2),
    "baby-llama-58m": (58_479_616, 58_479_616, 33_174_016, 8 * 2 * 8 * 64 * 2),
    "baby-llama-218m": (218_155_008, 218_155_008, 66_348_032, 12 * 2 * 8 * 128 * 2),
}  # fmt: skip


def shape_of(recipe: str) -> ModelConfig:
    model = load_config(PretrainConfig, ROOT / "recipes" / recipe / "pretrain.yaml").model
    assert model is not None
    return model


def test_every_recipe_that_makes_a_model_is_counted_here() -> None:
    assert {p.parent.name for p in (ROOT / "recipes").glob("*/pretrain.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("recipe", EXPECTED)
def test_counts_are_exact(recipe: str) -> None:
    row = measure(ROOT / "recipes" / recipe)
    assert (*row.counts, row.cache_bytes) == EXPECTED[recipe]


@pytest.mark.parametrize("recipe", EXPECTED)
def test_transformers_counts_the_same(recipe: str) -> None:
    values: dict[str, Any] = config_to_hf(shape_of(recipe), torch.float32)
    config = transformers.AutoConfig.for_model(**values)
    with torch.device("meta"):
        theirs: Any = transformers.AutoModelForCausalLM.from_config(config)
    theirs.tie_weights()
    assert sum(p.numel() for p in theirs.parameters()) == EXPECTED[recipe][0]


@pytest.mark.parametrize("recipe", EXPECTED)
def test_a_small_twin_trains_saves_and_generates_in_transformers(
    recipe: str, tmp_path: Path
) -> None:
    shape = shape_of(recipe)
    small = {"vocab_size": 67, "num_hidden_layers": 2, "hidden_size": shape.num_attention_heads * 4}
    small["intermediate_size"] = 24
    if shape.kv_lora_rank is None:
        small["head_dim"] = 8
    if shape.num_experts:
        small["moe_intermediate_size"] = 8
    torch.manual_seed(0)
    model = CausalLM(ModelConfig(**{**shape.model_dump(), **small})).train()
    ids = torch.randint(67, (2, 12))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(2):
        logits = model(ids).head_output[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    save_hf_folder(model, model.config, tmp_path)
    again = load_causal_lm(tmp_path).eval()
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, again(ids).head_output, atol=1e-5, rtol=1e-5)
        # eos_token_id=-1: nothing ends the text early.
        said = theirs.generate(ids[:1], max_new_tokens=4, do_sample=False, eos_token_id=-1)
    assert said.shape == (1, 16)


def test_the_verb_prints_one_table() -> None:
    command = [sys.executable, "-m", "mengya", "parameters", "recipes/zh-26m", "recipes/buddy-0.7b"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env=_wide()
    )
    assert "25,830,912" in done.stdout and "Qwen3" in done.stdout
    assert "407,037,696" in done.stdout and "DeepseekV3" in done.stdout and "1,920" in done.stdout
    assert "zh-64m" not in done.stdout


def test_a_recipe_without_a_shape_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "pretrain.yaml"
    recipe.write_text(
        "{run_dir: runs/x, init_from: runs/y, max_steps: 1, data: {train: [shards/x]}}"
    )
    with pytest.raises(UserError, match="names no model"):
        measure(recipe)


def _wide() -> dict[str, str]:
    import os

    return {**os.environ, "COLUMNS": "160"}

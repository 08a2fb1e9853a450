"""DoRA against PEFT on transformers' classes; where it and 4-bit bases cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file

from mengya.errors import UserError
from mengya.models.adapters.lora import (
    LoraConfig,
    add_lora,
    disable_adapters,
    load_adapter,
    load_merged,
    lora_layers,
    merge_lora,
    save_adapter,
)
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from tests.helpers.oracle import assert_near, oracle_of
from tests.helpers.random_model import random_model, tiny_config

ATTENTION = ["q_proj", "k_proj", "o_proj"]
IDS = torch.randint(101, (3, 20), generator=torch.Generator().manual_seed(7))


@pytest.fixture(params=["Qwen3", "Qwen2", "Llama", "Qwen3Moe"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def targets(family: str) -> list[str] | None:
    return ATTENTION if family == "Qwen3Moe" else None


def adapted(model: CausalLM, targets: list[str] | None) -> CausalLM:
    add_lora(model, LoraConfig(rank=3, alpha=5.0, use_dora=True, targets=targets))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.2)
            elif "magnitude" in name:
                parameter.mul_(torch.rand_like(parameter) + 0.5)
    return model


@torch.no_grad()
def test_fresh_adapters_change_nothing_and_train_lengths_too(
    model: CausalLM, targets: list[str] | None
) -> None:
    before = model(IDS).head_output
    add_lora(model, LoraConfig(rank=3, use_dora=True, targets=targets))
    assert_near(model(IDS).head_output, before)
    trained = {name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"lora_A", "lora_B", "lora_magnitude_vector"}


@torch.no_grad()
def test_peft_reads_our_adapter_on_transformers(
    model: CausalLM, oracle: Any, targets: list[str] | None, tmp_path: Path
) -> None:
    save_hf_folder(model, model.config, tmp_path / "base")
    before = model(IDS).head_output
    ours = adapted(model, targets)(IDS).head_output
    assert (ours - before).abs().max() > 0.1
    save_adapter(model, tmp_path / "adapter", tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(oracle, tmp_path / "adapter").eval()
    assert_near(theirs(IDS).logits, ours, 2e-5)
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any(name.endswith(".lora_magnitude_vector") for name in stored)
    bare = load_adapter(load_causal_lm(tmp_path / "base").eval(), tmp_path / "adapter")
    assert_near(bare(IDS).head_output, ours)
    assert_near(load_merged(tmp_path / "adapter").eval()(IDS).head_output, ours, 5e-5)


@torch.no_grad()
def test_we_read_peft_s_adapter(tmp_path: Path) -> None:
    model = random_model(tiny_config("Qwen3"))
    settings = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "up_proj"],
        use_dora=True,
        init_lora_weights=False,
    )
    theirs = peft.get_peft_model(oracle_of(model), settings).eval()
    theirs.save_pretrained(str(tmp_path))
    assert_near(load_adapter(model, tmp_path)(IDS).head_output, theirs(IDS).logits, 2e-5)


@torch.no_grad()
def test_merged_and_disabled(model: CausalLM, targets: list[str] | None) -> None:
    before, names = model(IDS).head_output, list(model.state_dict())
    with_adapters = adapted(model, targets)(IDS).head_output
    with disable_adapters(model):
        assert torch.equal(model(IDS).head_output, before)
    merged = merge_lora(model)
    assert_near(merged(IDS).head_output, with_adapters, 5e-5)
    assert list(merged.state_dict()) == names and not list(lora_layers(merged))


def test_experts_have_no_dora() -> None:
    with pytest.raises(
        UserError, match=r"experts .*lora\.targets=\[q_proj, k_proj, v_proj, o_proj\]"
    ):
        add_lora(random_model(tiny_config("Qwen3Moe")), LoraConfig(use_dora=True))


def test_a_4bit_base_needs_a_gpu() -> None:
    model = random_model(tiny_config("Qwen3"))
    with pytest.raises(UserError, match=r"on cpu, .* set lora\.base_4bit=false"):
        add_lora(model, LoraConfig(base_4bit=True))
    assert all(type(m) is not torch.nn.Module for m in model.modules())  # untouched
    assert_near(model(IDS).head_output, random_model(tiny_config("Qwen3"))(IDS).head_output)

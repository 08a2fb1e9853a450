"""Adapters against PEFT on transformers' classes, merging, switching off, and wrong targets."""

from __future__ import annotations

import json
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
from tests.helpers.oracle import assert_near
from tests.helpers.random_model import random_model, tiny_config


def adapted(model: CausalLM, **settings: Any) -> CausalLM:
    """`model` with adapters that change what it says (fresh ones have B = 0)."""
    add_lora(model, LoraConfig(rank=3, alpha=5.0, **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.2)
    return model


@torch.no_grad()
def test_fresh_adapters_change_nothing(model: CausalLM, input_ids: torch.Tensor) -> None:
    before = model(input_ids).head_output
    assert add_lora(model, LoraConfig(rank=3)) is model
    assert torch.equal(model(input_ids).head_output, before)


def test_only_adapters_are_trained(model: CausalLM, input_ids: torch.Tensor) -> None:
    adapted(model).train()
    model(input_ids).head_output.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (".lora_" in name)
        assert (parameter.grad is not None and parameter.grad.abs().max() > 0) == (".lora_" in name)


@torch.no_grad()
def test_merged_logits_are_those_of_the_adapter(model: CausalLM, input_ids: torch.Tensor) -> None:
    before, names = model(input_ids).head_output, list(model.state_dict())
    with_adapters = adapted(model)(input_ids).head_output
    assert (with_adapters - before).abs().max() > 0.1
    merged = merge_lora(model)
    assert_near(merged(input_ids).head_output, with_adapters, 2e-5)
    assert list(merged.state_dict()) == names and not list(lora_layers(merged))
    assert all(p.requires_grad for p in merged.parameters())


def test_disabled_adapters_are_as_if_absent_and_come_back(
    model: CausalLM, input_ids: torch.Tensor
) -> None:
    before = model(input_ids).head_output
    adapted(model)
    on = model(input_ids).head_output
    with disable_adapters(model), torch.no_grad():  # as DPO asks its reference, graph kept
        assert torch.equal(model(input_ids).head_output, before)
    assert torch.equal(model(input_ids).head_output, on)
    on.square().mean().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if ".lora_" in n)
    with pytest.raises(RuntimeError), disable_adapters(model):
        raise RuntimeError
    assert torch.equal(model(input_ids).head_output, on)


@torch.no_grad()
def test_peft_reads_our_adapter_on_transformers(
    model: CausalLM, oracle: Any, input_ids: torch.Tensor, tmp_path: Path
) -> None:
    save_hf_folder(model, model.config, tmp_path / "base")
    ours = adapted(model)(input_ids).head_output
    save_adapter(model, tmp_path / "adapter", tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(oracle, tmp_path / "adapter").eval()
    assert_near(theirs(input_ids).logits, ours, 2e-5)
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.model.layers.") for name in stored)


@torch.no_grad()
def test_we_read_peft_s_adapter_from_transformers(
    model: CausalLM, oracle: Any, input_ids: torch.Tensor, tmp_path: Path
) -> None:
    settings = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "o_proj"], init_lora_weights=False
    )
    theirs = peft.get_peft_model(oracle, settings).eval()
    expected = theirs(input_ids).logits
    theirs.save_pretrained(str(tmp_path))
    assert (expected - model(input_ids).head_output).abs().max() > 0.05
    assert_near(load_adapter(model, tmp_path)(input_ids).head_output, expected, 2e-5)


@torch.no_grad()
def test_saved_adapters_come_back_alone_and_merged(
    model: CausalLM, input_ids: torch.Tensor, tmp_path: Path
) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    save_hf_folder(model, model.config, base)
    expected = adapted(model)(input_ids).head_output
    save_adapter(model, adapter, base)
    fresh = add_lora(load_causal_lm(base).eval(), LoraConfig(rank=3, alpha=5.0))
    assert torch.equal(load_adapter(fresh, adapter)(input_ids).head_output, expected)
    bare = load_adapter(load_causal_lm(base).eval(), adapter)
    assert torch.equal(bare(input_ids).head_output, expected)
    merged = load_merged(adapter).eval()
    assert_near(merged(input_ids).head_output, expected, 2e-5)
    again = tmp_path / "again"
    save_adapter(model, again, base)  # the same bytes every time
    assert (again / "adapter_config.json").read_bytes() == (
        adapter / "adapter_config.json"
    ).read_bytes()


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["q_proj", "v_proj"], {"self_attn.q_proj", "self_attn.v_proj"}),
        (["layers.1.self_attn.k_proj"], {"layers.1.self_attn.k_proj"}),
        (["mlp.down_proj"], {"mlp.down_proj"}),
        (["lm_head"], {"lm_head"}),
    ],
)
def test_targets_choose_layers(targets: list[str], expected: set[str]) -> None:
    model = add_lora(random_model(tiny_config("Llama")), LoraConfig(targets=targets))
    names = [name for name, _ in lora_layers(model)]
    assert names
    assert all(any(name.endswith(end) for end in expected) for name in names)
    assert all(any(name.endswith(end) for name in names) for end in expected)


@torch.no_grad()
def test_a_padded_product_does_not_leave_out_the_output_layer_s_adapter() -> None:
    model = adapted(random_model(tiny_config("Llama")), targets=["lm_head"])
    ids = torch.arange(20)[None]
    expected = model(ids).head_output
    model.pad_vocabulary = True  # as on a GPU
    assert torch.equal(model(ids).head_output, expected)


def test_experts_can_be_chosen_or_left_out() -> None:
    model = add_lora(random_model(tiny_config("Qwen3Moe")), LoraConfig(targets=["down_proj"]))
    assert [n for n, _ in lora_layers(model)] == [f"model.layers.{i}.mlp.experts" for i in (0, 1)]
    model = add_lora(
        random_model(tiny_config("Qwen3Moe")), LoraConfig(targets=["q_proj"], dropout=0.1)
    )
    assert all(n.endswith("q_proj") for n, _ in lora_layers(model))
    with pytest.raises(UserError, match=r"lora\.dropout=0\.1 cannot be applied inside experts"):
        add_lora(random_model(tiny_config("Qwen3Moe")), LoraConfig(dropout=0.1))


@pytest.mark.parametrize(
    ("family", "targets", "reason"),
    [
        ("Qwen3", ["q_proj", "query"], "no layer named query; this model has q_proj, k_proj"),
        ("Qwen3", ["lm_head"], "no layer named lm_head"),  # it is the embedding
        ("Qwen3", ["proj"], "no layer named proj"),
        ("Qwen3", [], "empty list"),
        ("Qwen3Moe", ["up_proj"], "gate_up_proj, down_proj"),
    ],
)
def test_an_unmatched_target_is_refused_with_the_real_names(
    family: str, targets: list[str], reason: str
) -> None:
    with pytest.raises(UserError) as refused:
        add_lora(random_model(tiny_config(family)), LoraConfig(targets=targets))
    assert reason in str(refused.value)


def test_adapters_twice_or_none_are_refused(tmp_path: Path) -> None:
    model = random_model(tiny_config("Qwen3"))
    with pytest.raises(UserError, match="no LoRA adapters to save"):
        save_adapter(model, tmp_path, tmp_path)
    add_lora(model, LoraConfig())
    with pytest.raises(UserError, match="already has LoRA"):
        add_lora(model, LoraConfig())


def test_adapters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_adapter(adapted(random_model(tiny_config("Qwen3"))), tmp_path, tmp_path / "gone")
    with pytest.raises(UserError, match=r"lora_A\.weight has shape \[3, 48\].*\[3, 32\]"):
        load_adapter(random_model(tiny_config("Qwen3", hidden_size=32)), tmp_path)
    with pytest.raises(UserError, match="adapter tensors do not match"):
        load_adapter(random_model(tiny_config("Qwen3", num_hidden_layers=3)), tmp_path)
    with pytest.raises(UserError, match="out=FOLDER base=FOLDER"):
        load_merged(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UserError, match="damaged or missing"):
        load_adapter(random_model(tiny_config("Qwen3")), tmp_path)
    settings = tmp_path / "adapter_config.json"
    settings.write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(UserError, match="only LoRA"):
        load_adapter(random_model(tiny_config("Qwen3")), tmp_path)
    settings.unlink()
    with pytest.raises(UserError, match="is not a LoRA adapter folder"):
        load_adapter(random_model(tiny_config("Qwen3")), tmp_path)

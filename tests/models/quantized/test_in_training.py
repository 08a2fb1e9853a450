"""Models whose weights are rounded in training: their names, transformers' answers, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from mengya.errors import UserError
from mengya.losses.token_nll import token_nll
from mengya.models.adapters.lora import LoraConfig, add_lora
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.config.quantization import TrainedQuantization
from mengya.models.fp8_layers import fp8_layers
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from mengya.models.hf.config import load_model_config
from mengya.models.quantized.full import fix_weights, full_weights, rounds
from mengya.models.quantized.in_training import RoundedLinear, trained_weights
from tests.helpers.random_model import FAMILIES, random_model, tiny_config

BITS: dict[str, Any] = {"bits": 2, "group_size": 8}
LATENT = ("DeepseekV3", "DeepseekV3 dense")
KINDS = [
    pytest.param(family, kind, id=f"{family}-{'ternary' if kind == 'ternary' else 'int'}")
    for family in FAMILIES
    for kind in ("ternary", BITS)
    if kind != "ternary" or family not in LATENT
]


def rounded_model(family: str, quantization: Any) -> CausalLM:
    group = {**BITS, "group_size": 4} if quantization != "ternary" and family in LATENT else None
    return random_model(tiny_config(family, quantization=group or quantization))


def ids_of(model: CausalLM) -> torch.Tensor:
    return torch.randint(
        model.config.vocab_size, (2, 12), generator=torch.Generator().manual_seed(7)
    )


@torch.no_grad()
def logits(model: CausalLM) -> torch.Tensor:
    return model(ids_of(model)).head_output


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_names_folder_and_weights(family: str, kind: Any, tmp_path: Path) -> None:
    """Of every class: names and gradients are those of a full model, and the folder gives it back."""
    model = rounded_model(family, kind)
    plain = CausalLM(tiny_config(family))
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(logits(plain.eval()), logits(model))
    token_nll(model.train()(ids_of(model)).head_output, ids_of(model)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

    save_hf_folder(model, model.config, tmp_path)
    loaded = load_causal_lm(tmp_path).eval()
    assert loaded.config == model.config
    assert torch.equal(logits(loaded), logits(model.eval()))

    stored = trained_weights(model)
    on_disk = {name for name in plain.state_dict() if ".layers." in name and "_proj" in name}
    assert len(stored) >= len(on_disk) - len([n for n in on_disk if n.endswith(".bias")])
    assert not any("gate.weight" in n or n.endswith("shared_expert_gate") for n in stored)


@pytest.mark.parametrize("family", ["Qwen3", "Llama", "Qwen2"])
def test_transformers_reads_the_ternary_folder(family: str, tmp_path: Path) -> None:
    model = rounded_model(family, "ternary")
    save_hf_folder(model, model.config, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        error = theirs(ids_of(model)).logits - logits(model)
    # An input on the edge of two codes may fall to either: they add up in another order.
    assert error.norm() / logits(model).norm() < 1e-2
    assert error.abs().median() < 1e-4


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_fixed_weights_give_the_same_products(family: str, kind: Any) -> None:
    model = rounded_model(family, kind)
    before = logits(model)
    fixed = fix_weights(copy.deepcopy(model))
    assert not any(isinstance(m, RoundedLinear) for m in fixed.modules())
    assert list(fixed.state_dict()) == list(model.state_dict())
    assert rounds(fixed) == (kind == "ternary")
    error = (logits(fixed) - before).norm() / before.norm()
    assert error < (1e-2 if kind == "ternary" else 1e-5)  # inputs on the edge of two codes
    assert not rounds(full_weights(fixed))


@pytest.mark.parametrize("family", ["Qwen3", "Qwen3Moe", "DeepseekV3 dense"])
def test_full_weights_give_the_same_products(family: str) -> None:
    """Of integers; ternary weights lose the rounding of their inputs."""
    model = rounded_model(family, BITS)
    before = logits(model)
    full = full_weights(copy.deepcopy(model))
    assert full.config.quantization is None
    assert not any(isinstance(m, RoundedLinear) for m in full.modules())
    torch.testing.assert_close(logits(full), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["ternary", BITS], ids=["ternary", "int"])
def test_checkpointing_changes_nothing(kind: Any) -> None:
    recomputed = gradients(kind, checkpointing=True)
    assert all(map(torch.equal, recomputed, gradients(kind)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ternary", BITS], ids=["ternary", "int"])
def test_the_compiler_changes_nothing(kind: Any) -> None:
    for got, wanted in zip(gradients(kind, compiled=True), gradients(kind), strict=True):
        assert (got - wanted).norm() <= 0.02 * wanted.norm() + 1e-6


def gradients(kind: Any, checkpointing: bool = False, compiled: bool = False) -> list[torch.Tensor]:
    model = rounded_model("Qwen3", kind).train()
    model.gradient_checkpointing = checkpointing
    if compiled:
        model.compile_layers()
    token_nll(model(ids_of(model)).head_output, ids_of(model)).mean().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("kind", ["ternary", BITS], ids=["ternary", "int"])
def test_a_model_learns_with_rounded_weights(kind: Any) -> None:
    torch.manual_seed(0)
    model = CausalLM(tiny_config("Qwen3", quantization=kind))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = token_nll(model(ids_of(model)).head_output, ids_of(model)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_what_cannot_be_is_refused_with_what_to_write() -> None:
    with pytest.raises(ValidationError, match=r"latent attention decodes.*quantization.bits=2"):
        tiny_config("DeepseekV3", quantization="ternary")
    with pytest.raises(ValidationError, match=r"does not divide hidden_size of 48.*group_size=16"):
        tiny_config("Qwen3", quantization={"bits": 2, "group_size": 32})
    assert tiny_config("Qwen3", quantization={"bits": 2, "group_size": 16})
    with pytest.raises(ValidationError, match="mean nothing to ternary"):
        TrainedQuantization(number="ternary", group_size=32)
    with pytest.raises(UserError, match=r"rounded away.*lora=null"):
        add_lora(rounded_model("Qwen3", "ternary"), LoraConfig())
    with pytest.raises(UserError, match="adapted or quantized"):
        fp8_layers(rounded_model("Qwen3", "ternary"))


def test_what_config_json_says(tmp_path: Path) -> None:
    """transformers' own words where it has them; a foreign folder of another kind of BitNet is not ours."""
    save_hf_folder(
        rounded_model("Qwen3", "ternary"), tiny_config("Qwen3", quantization="ternary"), tmp_path
    )
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    assert values["quantization_config"]["quantization_mode"] == "online"
    assert load_model_config(tmp_path).quantization == TrainedQuantization(number="ternary")
    assert isinstance(load_model_config(tmp_path), ModelConfig)

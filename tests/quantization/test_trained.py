"""Checkpoints that were trained with rounded weights are packed as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import write_folder
from mengya.models.quantized.folder import QuantizedFolder
from mengya.models.quantized.in_training import trained_weights
from mengya.models.quantized.load import load_dequantized, load_quantized
from mengya.stages.quantize import QuantizeConfig
from mengya.stages.quantize import run as quantize
from mengya.tokenizer.load import load_tokenizer
from tests.helpers.random_model import random_model, tiny_config
from tests.tokenizer.conftest import corpus, tokenizer, tokenizer_folder

__all__ = ["corpus", "tokenizer", "tokenizer_folder"]
WIDE = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32}


def checkpoint(family: str, quantization: Any, tokens: Path, folder: Path) -> CausalLM:
    tokenizer = load_tokenizer(tokens)
    wide = {k: v for k, v in WIDE.items() if k != "moe_intermediate_size" or "Moe" in family}
    model = random_model(
        tiny_config(family, quantization=quantization, vocab_size=len(tokenizer), **wide)
    )
    write_folder(model, tokenizer, tokens, torch.float32, folder)
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    ids = torch.randint(100, (2, 12), generator=torch.Generator().manual_seed(7))
    out = model(ids)
    return out.logits if hasattr(out, "logits") else out.head_output


@pytest.mark.parametrize("family", ["Llama", "Qwen2"])
def test_ternary_weights_are_packed_and_transformers_agrees(
    family: str, tokenizer_folder: Path, tmp_path: Path
) -> None:
    model = checkpoint(family, "ternary", tokenizer_folder, tmp_path / "trained")
    quantize(QuantizeConfig(checkpoint=tmp_path / "trained", out=tmp_path / "small"))
    config = json.loads((tmp_path / "small/config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "bitnet"
    assert "trained_quantization" not in config
    with torch.compiler.set_stance("force_eager"):
        error = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "small")) - logits(model)
    ours = logits(load_quantized(tmp_path / "small")) - logits(model)
    for off in (error, ours):
        assert off.norm() / logits(model).norm() < 1e-2  # inputs on the edge of two codes
        assert off.abs().median() < 1e-4
    check_codes(model, tmp_path / "small")


@pytest.mark.parametrize(
    ("family", "bits", "save_dtype"),
    [("Qwen3", 2, "float32"), ("Qwen3Moe", 3, "bfloat16"), ("Glm4Moe", 2, "float16")],
)
def test_integers_are_packed_and_nothing_is_lost(
    family: str, bits: int, save_dtype: Any, tokenizer_folder: Path, tmp_path: Path
) -> None:
    scheme = {"bits": bits, "group_size": 32}
    model = checkpoint(family, scheme, tokenizer_folder, tmp_path / "trained")
    quantize(
        QuantizeConfig(
            checkpoint=tmp_path / "trained", out=tmp_path / "small", save_dtype=save_dtype
        )
    )
    check_codes(model, tmp_path / "small")
    if save_dtype == "float32":
        found = logits(load_dequantized(tmp_path / "small"))
        torch.testing.assert_close(found, logits(model), rtol=1e-4, atol=1e-4)


def check_codes(model: CausalLM, folder: Path) -> None:
    """Codes and scales of the folder are those of the model."""
    plain = model.config.model_copy(update={"quantization": None})
    stored, trained = QuantizedFolder(folder, plain), trained_weights(model)
    assert stored.stored.keys() == trained.keys()
    for name, weight in trained.items():
        found = stored.weight(name)
        assert torch.equal(found.codes_OI, weight.codes_OI)
        # Of ternary weights the reciprocal is stored.
        ternary = weight.scheme.number == "ternary"
        torch.testing.assert_close(
            found.scale_OG, weight.scale_OG, rtol=1e-6 if ternary else 0, atol=0
        )


def test_what_training_decided_is_refused(tokenizer_folder: Path, tmp_path: Path) -> None:
    checkpoint("Qwen3", "ternary", tokenizer_folder, tmp_path / "trained")
    checkpoint("Qwen3Moe", "ternary", tokenizer_folder, tmp_path / "mixture")
    common: dict[str, Any] = {"checkpoint": tmp_path / "trained", "out": tmp_path / "small"}
    with pytest.raises(UserError, match="decides bits; leave that out"):
        quantize(QuantizeConfig(**common, bits=2))
    with pytest.raises(UserError, match="leave method out"):
        quantize(QuantizeConfig(**common, method="gptq"))
    with pytest.raises(UserError, match="take the bitnet layout"):
        quantize(QuantizeConfig(**common, layout="compressed-tensors"))
    with pytest.raises(UserError, match="no BitNet experts"):
        quantize(QuantizeConfig(checkpoint=tmp_path / "mixture", out=tmp_path / "small"))
    assert not (tmp_path / "small").exists()

"""bitsandbytes' int8 layout; the package itself reads it in a slow test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mengya.errors import UserError
from mengya.kernels.quantized.weight import Scheme
from mengya.models.quantized.layouts.bitsandbytes import Bitsandbytes
from mengya.models.quantized.layouts.layout import Stored
from mengya.models.quantized.load import load_dequantized
from tests.helpers.quantized_folder import rounded, write_rounded
from tests.helpers.random_model import random_model, tiny_config

# A Python with bitsandbytes, transformers and accelerate.
ORACLE = Path(os.environ.get("MENGYA_BITSANDBYTES_PYTHON", "/opt/oracles/bnb/bin/python"))
OUTLIERS = Scheme(8, activations="int8_outliers")
NAMES = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"]


def test_weights_are_127ths_of_the_largest_of_a_row() -> None:
    layout, weight_OI = Bitsandbytes(), torch.randn(16, 24)
    weight = rounded(weight_OI, OUTLIERS)
    tensors = layout.to_tensors(weight, Stored(OUTLIERS), torch.bfloat16)
    torch.testing.assert_close(tensors["SCB"], weight_OI.abs().amax(1))
    assert tensors["weight"].dtype == torch.int8 and tensors["weight"].abs().max() == 127
    full = tensors["weight"].float() * tensors["SCB"][:, None] / 127
    torch.testing.assert_close(full, weight.dequantize())
    again = layout.from_tensors(tensors, Stored(OUTLIERS), (16, 24))
    torch.testing.assert_close(again.dequantize(), weight.dequantize())


@pytest.mark.parametrize("activations", ["int8_outliers", "int8"])
def test_the_configuration_says_what_is_skipped(activations: Any) -> None:
    layout, stored = Bitsandbytes(), Stored(Scheme(8, activations=activations))
    config = layout.to_config({NAMES[0]: stored}, ["lm_head", NAMES[1]])
    assert config["llm_int8_threshold"] == (6.0 if activations == "int8_outliers" else 0.0)
    assert layout.from_config(config, NAMES) == {NAMES[0]: stored}


@pytest.mark.parametrize("skipped", ["mlp.down_proj", "model.layers.0.mlp", "model.layers.*.mlp"])
def test_names_are_skipped_as_transformers_does(skipped: str) -> None:
    config = {"load_in_8bit": True, "llm_int8_skip_modules": [skipped]}
    assert Bitsandbytes().from_config(config, NAMES).keys() == {NAMES[0]}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "4-bit weights \\('nf4'\\)"),
        ({}, "load_in_8bit None"),
        ({"load_in_8bit": True, "llm_int8_threshold": 3.0}, "llm_int8_threshold 3.0"),
    ],
)
def test_what_is_not_supported_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Bitsandbytes().from_config(config, NAMES)


def test_what_it_does_not_hold_is_refused() -> None:
    layout = Bitsandbytes()
    for scheme in (Scheme(4, activations="int8"), Scheme(8, 32), Scheme(8)):
        with pytest.raises(UserError, match=r"LLM\.int8 alone"):
            layout.check(Stored(scheme), (64, 64))
    with pytest.raises(UserError, match="transformers keeps experts otherwise"):
        layout.to_config({"model.layers.0.mlp.experts.0.up_proj": Stored(OUTLIERS)}, [])


READ = """
import sys, torch, transformers
from safetensors.torch import save_file
model, report = transformers.AutoModelForCausalLM.from_pretrained(
    sys.argv[1], dtype=torch.float32, device_map="cpu", output_loading_info=True
)
assert not any(report.values()), report
found = {}
for name, module in model.named_modules():
    if type(module).__name__ == "Linear8bitLt":
        found[name] = module.weight.data.float() * module.weight.SCB[:, None] / 127
found["logits"] = model.eval()(torch.arange(20)[None]).logits.detach().float().contiguous()
save_file(found, sys.argv[1] + "/theirs.st")
"""


@pytest.mark.slow
def test_bitsandbytes_reads_our_folder(tokenizer_folder: Path, tmp_path: Path) -> None:
    if not ORACLE.exists():
        pytest.skip(f"no environment with bitsandbytes at {ORACLE}")
    model = random_model(tiny_config("Qwen2"))
    weights = write_rounded(model, OUTLIERS, "bitsandbytes", tokenizer_folder, tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(ORACLE), "-c", READ, str(tmp_path)]
    subprocess.run(command, env=environment, check=True, capture_output=True, cwd=tmp_path)
    theirs = load_file(tmp_path / "theirs.st")
    logits = theirs.pop("logits")
    assert theirs.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(theirs[name], weight.dequantize())
    ours = load_dequantized(tmp_path)(torch.arange(20)[None]).head_output
    assert (logits - ours).norm() < 0.05 * ours.norm()  # theirs rounds activations to 8 bits

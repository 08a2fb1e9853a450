"""Quantized folders that are damaged, mixed up or of a kind that is not read: each is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mengya.errors import UserError
from mengya.kernels.quantized.weight import Scheme
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from mengya.models.quantized.layers import QuantizedLinear
from mengya.models.quantized.load import load_quantized
from tests.helpers.quantized_folder import quantized_weights, write_rounded
from tests.helpers.random_model import random_model, tiny_config

Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def written(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folders") / "int4"
    model = random_model(tiny_config("Qwen3"))
    write_rounded(model, Scheme(4, 16), "compressed-tensors", tokenizer_folder, folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(written, tmp_path / "model"))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= values
    (folder / "config.json").write_text(json.dumps(config))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_quantized(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_a_missing_scale(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.pop(f"{Q_PROJ}.weight_scale"))
    assert f"missing, such as {Q_PROJ}.weight_scale; the folder is incomplete" in refusal(folder)


def test_full_weights_where_the_configuration_says_small_ones(folder: Path) -> None:
    model = random_model(tiny_config("Qwen3"))
    save_hf_folder(model, model.config, folder / "full")
    shutil.copy(folder / "full" / "model.safetensors", folder)
    assert f"{Q_PROJ}.weight is there instead: config.json is of another folder" in refusal(folder)


def test_bits_of_another_folder(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())["quantization_config"]
    values["config_groups"]["group_0"]["weights"]["num_bits"] = 8
    change_config(folder, **values)
    message = refusal(folder)
    assert "has shape [64, 6], but config.json says [64, 12] (8 bits, groups of 16)" in message


def test_groups_that_do_not_divide(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())["quantization_config"]
    values["config_groups"]["group_0"]["weights"]["group_size"] = 32
    change_config(folder, **values)
    assert f"{Q_PROJ}: groups of 32 do not divide rows of 48 inputs; take 16" in refusal(folder)


@pytest.mark.parametrize("method", ["awq", "fp8", "nf4", None, 3])
def test_layouts_that_are_not_read(folder: Path, method: Any) -> None:
    change_config(folder, quant_method=method)
    message = refusal(folder)
    assert f"quant_method {method!r} is not supported" in message
    assert "compressed-tensors, gptq, bitsandbytes" in message


def test_numbers_that_are_not_finite(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors[f"{Q_PROJ}.weight_scale"].fill_(torch.inf))
    assert f"{Q_PROJ}: weight_scale holds numbers that are not finite" in refusal(folder)


def test_a_shape_of_another_model(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors[f"{Q_PROJ}.weight_shape"].fill_(7))
    assert f"{Q_PROJ}: weight_shape says [7, 7], config.json [64, 48]" in refusal(folder)


def test_tensors_that_no_layer_has(folder: Path) -> None:
    def more(tensors: dict[str, Tensor]) -> None:
        tensors[f"{Q_PROJ}.weight_global_scale"] = torch.ones(1)

    change_tensors(folder, more)
    assert "such as model.layers.0.self_attn.q_proj.weight_global_scale" in refusal(folder)


def test_a_missing_norm(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.pop("model.norm.weight"))
    assert "missing, such as model.norm.weight" in refusal(folder)


def test_a_cut_file(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "is damaged or missing" in refusal(folder)


def test_a_configuration_that_is_no_mapping(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = [4]
    (folder / "config.json").write_text(json.dumps(config))
    assert "quantization_config [4] must be a mapping" in refusal(folder)


def test_it_is_not_for_training(folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_causal_lm(folder)
    message = str(caught.value)
    assert "quantized (compressed-tensors)" in message and "lora.base_4bit=true" in message


def test_an_expert_that_is_missing_alone(tokenizer_folder: Path, tmp_path: Path) -> None:
    model = random_model(tiny_config("Qwen3Moe"))
    left = "model.layers.1.mlp.experts.2.up_proj"

    def most(name: str) -> Scheme | None:
        return None if name == left else Scheme(8)

    write_rounded(model, most, "compressed-tensors", tokenizer_folder, tmp_path)
    linear = load_quantized(tmp_path).get_submodule(left)
    assert not isinstance(linear, QuantizedLinear)
    change_tensors(tmp_path, lambda tensors: tensors.pop(f"{left}.weight"))
    assert f"missing, such as {left}.weight" in refusal(tmp_path)


def test_writing_names_the_layer_that_does_not_fit(tokenizer_folder: Path, tmp_path: Path) -> None:
    model = random_model(tiny_config("Qwen3"))
    with pytest.raises(UserError, match="down_proj: groups of 32 do not divide rows of 80 inputs"):
        write_rounded(
            model,
            lambda name: Scheme(4, 32) if "down" in name else None,
            "compressed-tensors", tokenizer_folder, tmp_path,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
    assert quantized_weights(model, lambda name: None) == {}


def test_a_norm_that_is_not_finite(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors["model.norm.weight"].fill_(torch.nan))
    assert "model.norm.weight holds NaN or infinity" in refusal(folder)


def test_fp8_numbers_that_are_not_finite(tokenizer_folder: Path, tmp_path: Path) -> None:
    scheme = Scheme(8, number="float8", activations="float8")
    model = random_model(tiny_config("Qwen3"))
    write_rounded(model, scheme, "compressed-tensors", tokenizer_folder, tmp_path / "fp8")
    load_quantized(tmp_path / "fp8")
    codes = f"{Q_PROJ}.weight"
    change_tensors(tmp_path / "fp8", lambda tensors: tensors[codes].view(torch.uint8).fill_(255))
    assert f"{Q_PROJ}: weight holds numbers that are not finite" in refusal(tmp_path / "fp8")


@pytest.mark.parametrize("text", ["", "[]", "3", "[" * 100_000, "\0"])
def test_a_config_that_is_no_json(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert "config.json is not readable JSON" in refusal(folder)

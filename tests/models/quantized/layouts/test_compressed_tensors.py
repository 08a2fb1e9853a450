"""Folders in the compressed-tensors layout: transformers reads ours, we read those of the package itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from safetensors.torch import load_file
from torch import Tensor

from mengya.errors import UserError
from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from mengya.models.quantized.layers import QuantizedLinear
from mengya.models.quantized.layouts.compressed_tensors import CompressedTensors
from mengya.models.quantized.layouts.layout import Stored
from mengya.models.quantized.load import load_dequantized, load_quantized
from tests.helpers.oracle import oracle_of
from tests.helpers.quantized_folder import rounded, write_rounded
from tests.helpers.random_model import random_model, tiny_config

INT8 = Scheme(8, activations="int8")
FP8 = Scheme(8, number="float8", activations="float8")
INPUT_IDS = (torch.arange(20) * 5 % 101)[None]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.enable_progress_bar()


def read_by_transformers(folder: Path) -> Any:
    """With weights alone in small numbers, as they are compared; every tensor has found its place."""
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    theirs, report = loaded
    assert not any(report.values()), report
    return theirs.eval()


def full_activations(theirs: Any) -> Any:
    for module in theirs.modules():
        module.quantization_enabled = False
    return theirs


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("family", "scheme"),
    [
        ("Qwen3", Scheme(2, 16)),
        ("Qwen3", Scheme(3, 16)),
        ("Llama", Scheme(3)),
        ("Qwen3", Scheme(4, 16)),
        ("Llama", Scheme(8, 8)),
        ("Qwen2", Scheme(4)),
        ("Qwen2", Scheme(2, 8, symmetric=False)),
        ("Qwen3", Scheme(3, symmetric=False)),
        ("Llama", Scheme(4, 16, symmetric=False)),
        ("Qwen3", Scheme(8, symmetric=False)),
        ("Qwen2", INT8),
        ("Qwen3", FP8),
        ("DeepseekV3 dense", Scheme(4)),
        ("Qwen3Moe", Scheme(4, 8)),
        ("Qwen2Moe", Scheme(2, 8)),
        ("Glm4Moe", Scheme(3)),
        ("DeepseekV3", FP8),
    ],
)
@torch.no_grad()
def test_transformers_reads_our_folder(
    family: str, scheme: Scheme, tokenizer_folder: Path, tmp_path: Path
) -> None:
    model = random_model(tiny_config(family))
    weights = write_rounded(model, scheme, "compressed-tensors", tokenizer_folder, tmp_path)
    full = load_dequantized(tmp_path)
    logits = full(INPUT_IDS).head_output
    assert error(logits, model(INPUT_IDS).head_output) > 1e-3  # it is quantized indeed
    q_proj = "model.layers.0.self_attn.q_proj"
    if q_proj in weights:
        weight = full.get_parameter(f"{q_proj}.weight")
        assert weight.equal(weights[q_proj].dequantize())
    theirs = read_by_transformers(tmp_path)
    if scheme.activations != "full":
        assert 1e-5 < error(theirs(INPUT_IDS).logits, logits) < 0.2
    assert error(full_activations(theirs)(INPUT_IDS).logits, logits) < 1e-5


@torch.no_grad()
def test_a_folder_in_bf16(tokenizer_folder: Path, tmp_path: Path) -> None:
    """Scales take the dtype of the model, in which transformers holds them; the bias of a router does not."""
    model = random_model(tiny_config("Glm4Moe"))
    write_rounded(
        model, Scheme(4, 8), "compressed-tensors", tokenizer_folder, tmp_path, dtype=torch.bfloat16
    )
    stored = load_file(tmp_path / "model.safetensors")
    dtypes = {name.rpartition(".")[2]: tensor.dtype for name, tensor in stored.items()}
    assert dtypes.pop("e_score_correction_bias") == torch.float32
    assert dtypes == {
        "weight": torch.bfloat16, "bias": torch.bfloat16, "weight_scale": torch.bfloat16,
        "weight_packed": torch.int32, "weight_shape": torch.int64,
    }  # fmt: skip
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    logits = load_dequantized(tmp_path)(INPUT_IDS).head_output
    # transformers makes experts full in the dtype of their scales, linear layers in that of the model.
    assert error(read_by_transformers(tmp_path)(INPUT_IDS).logits, logits) < 5e-3


def by_layer(name: str) -> Scheme | None:
    """Bits, groups and numbers of all kinds in one folder; one layer stays full."""
    if ".experts." in name:
        return Scheme(2, 8)
    if "layers.0" in name:
        return Scheme(8) if "mlp" in name else FP8
    return None if "o_proj" in name else Scheme(4, 16)


@pytest.mark.parametrize("family", ["Qwen3", "Glm4Moe"])
@torch.no_grad()
def test_layers_may_differ(family: str, tokenizer_folder: Path, tmp_path: Path) -> None:
    model = random_model(tiny_config(family))
    write_rounded(
        model, by_layer, "compressed-tensors", tokenizer_folder, tmp_path, shard_bytes=20_000
    )
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = {path.name for path in tmp_path.glob("*.safetensors")}
    assert files == set(index["weight_map"].values()) and len(files) > 2
    logits = load_dequantized(tmp_path)(INPUT_IDS).head_output
    theirs = full_activations(read_by_transformers(tmp_path))
    assert error(theirs(INPUT_IDS).logits, logits) < 1e-5


def arguments(**changes: Any) -> dict[str, Any]:
    return {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "channel", **changes}


def group(inputs: dict[str, Any] | None = None, **weights: Any) -> dict[str, Any]:
    one = {"targets": ["Linear"], "weights": arguments(**weights), "input_activations": inputs}
    return {"config_groups": {"group_0": one}}


@pytest.mark.parametrize(
    ("weights", "inputs"),
    [
        (arguments(strategy="group", group_size=16), None),
        (arguments(num_bits=3, symmetric=False), None),
        (arguments(num_bits=8), arguments(num_bits=8, strategy="token", dynamic=True)),
        (
            arguments(num_bits=8, type="float"),
            arguments(num_bits=8, type="float", strategy="token", dynamic=True),
        ),
        (arguments(num_bits=8, type="float"), None),  # naive-quantized
    ],
)
@torch.no_grad()
def test_we_read_folders_of_the_package(
    weights: dict[str, Any], inputs: dict[str, Any] | None, tokenizer_folder: Path, tmp_path: Path
) -> None:
    model = random_model(tiny_config("Qwen3"))
    theirs = oracle_of(model)
    groups: Any = group(inputs, **weights)
    config = QuantizationConfig(**groups, ignore=["lm_head"])
    apply_quantization_config(theirs, config)
    for module in theirs.modules():
        if hasattr(module, "weight_scale"):
            scheme = Scheme(
                weights["num_bits"], weights.get("group_size"), weights["symmetric"],
                "float8" if weights["type"] == "float" else "int",
            )  # fmt: skip
            nearest = rounded(module.weight, scheme)
            module.weight_scale.copy_(nearest.scale_OG)
            if nearest.zero_OG is not None:
                module.weight_zero_point.copy_(nearest.zero_OG.int() - (1 << (scheme.bits - 1)))
    compressor = ModelCompressor.from_pretrained_model(theirs)
    compressor.compress_model(theirs)
    theirs.save_pretrained(tmp_path)
    compressor.update_config(str(tmp_path))
    compressor.decompress_model(theirs)
    ours = load_dequantized(tmp_path)
    for name, parameter in ours.named_parameters():
        assert parameter.equal(theirs.get_parameter(name)), name
    layer = load_quantized(tmp_path).get_submodule("model.layers.0.self_attn.q_proj")
    assert isinstance(layer, QuantizedLinear)
    expected = {None: "full", "int": "int8", "float": "float8"}[inputs and inputs["type"]]
    assert layer.scheme.activations == expected


def test_groups_by_activation_order_are_read_and_not_written() -> None:
    """Versions before 0.20 wrote weight_g_idx."""
    layout, scheme = CompressedTensors(), Scheme(4, 16)
    with pytest.raises(UserError, match="gptq layout"):
        layout.check(Stored(scheme, ordered=True), (32, 64))
    weight = rounded(torch.randn(32, 64), scheme, ordered=True)
    tensors = layout.to_tensors(weight, Stored(scheme), torch.float32)
    assert weight.group_I is not None
    tensors["weight_g_idx"] = weight.group_I
    config = layout.to_config({"x": Stored(scheme)}, [])
    config["config_groups"]["group_0"]["weights"]["actorder"] = "group"
    stored = layout.from_config(config, ["x"])["x"]
    assert layout.shapes(stored, (32, 64))["weight_g_idx"] == (64,)
    again = layout.from_tensors(tensors, stored, (32, 64))
    assert again.dequantize().equal(weight.dequantize())


@pytest.mark.parametrize(
    ("scheme", "shape", "message"),
    [
        (
            Scheme(4, 128),
            (32, 704),
            "groups of 128 do not divide rows of 704 inputs; take 64, 32, 16",
        ),
        (Scheme(8, activations="int8_outliers"), (32, 32), "take the bitsandbytes layout"),
        (Scheme(2, number="ternary"), (32, 32), "take the bitnet layout"),
        (Scheme(4, activations="int8"), (32, 32), "int with 8 bits"),
        (Scheme(8, activations="float8"), (32, 32), "need weights in float8"),
    ],
)
def test_what_it_does_not_hold_is_refused(
    scheme: Scheme, shape: tuple[int, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        CompressedTensors().check(Stored(scheme), shape)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_status": "frozen"}, "quantization_status 'frozen'"),
        ({"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme"),
        ({"transform_config": {"config_groups": {"a": 1}}}, "transform_config"),
        ({"config_groups": None}, "config_groups None must be a mapping"),
        ({"ignore": ["re:("]}, "pattern '\\('"),
        ({"format": "nvfp4-pack-quantized", **group()}, "format 'nvfp4-pack-quantized'"),
        ({"format": "pack-quantized", **group(type="float", num_bits=8)}, "does not hold"),
        (group(num_bits=5), "num_bits 5"),
        (group(type="float"), "num_bits 4"),
        (group(strategy="block"), "strategy 'block'"),
        (group(strategy="group", group_size=0), "group_size 0"),
        (group(dynamic=True), "dynamic True"),
        (group(arguments(num_bits=8, strategy="tensor")), "dynamic False"),
        (group(arguments(num_bits=8, strategy="tensor", dynamic=True)), "strategy 'tensor'"),
    ],
)
def test_what_is_not_computed_is_refused(changes: dict[str, Any], message: str) -> None:
    layout = CompressedTensors()
    config = layout.to_config({"x": Stored(Scheme(4, 16))}, ["lm_head"])
    assert layout.from_config(config, ["x", "lm_head"]).keys() == {"x"}
    with pytest.raises(UserError, match=message):
        layout.from_config({**config, **changes}, ["x"])


def test_names_go_before_patterns_before_classes() -> None:
    groups = {
        "a": {"targets": ["Linear"], "weights": arguments(num_bits=2)},
        "b": {"targets": [r"re:.*\.q_proj"], "weights": arguments(num_bits=3)},
        "c": {"targets": ["l.1.q_proj"], "weights": arguments(num_bits=8)},
    }
    config = {"config_groups": groups, "format": "pack-quantized", "ignore": ["re:.*gate$"]}
    found = CompressedTensors().from_config(config, ["l.0.q_proj", "l.1.q_proj", "l.o", "l.gate"])
    assert {name: one.scheme.bits for name, one in found.items()} == {
        "l.0.q_proj": 3, "l.1.q_proj": 8, "l.o": 2
    }  # fmt: skip


def test_numbers_that_cannot_be_are_refused() -> None:
    layout, stored = CompressedTensors(), Stored(INT8)
    weight: QuantizedWeight = rounded(torch.randn(4, 8), INT8)
    tensors = layout.to_tensors(weight, stored, torch.float32)
    broken: list[tuple[dict[str, Tensor], str]] = [
        ({"weight": tensors["weight"].float()}, "weight is float32, not int8"),
        ({"weight_scale": tensors["weight_scale"] * torch.nan}, "not finite"),
    ]
    for change, message in broken:
        with pytest.raises(UserError, match=message):
            layout.from_tensors({**tensors, **change}, stored, (4, 8))

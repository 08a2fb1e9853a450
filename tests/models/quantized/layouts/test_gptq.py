"""GPTQ's layout against its published form, read number by number; GPTQModel itself in a slow test."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mengya.errors import UserError
from mengya.kernels.quantized.weight import Scheme
from mengya.models.quantized.layouts.gptq import Gptq
from mengya.models.quantized.layouts.layout import Stored
from mengya.models.quantized.load import load_dequantized
from tests.helpers.quantized_folder import rounded, write_rounded
from tests.helpers.random_model import random_model, tiny_config

# A Python with gptqmodel and optimum (setuptools>=77 first, then --no-build-isolation); needs numpy 2.2.
ORACLE = Path(os.environ.get("MENGYA_GPTQ_PYTHON", "/opt/oracles/gptq/bin/python"))
# GPTQModel's kernels multiply in half precision.
BOUND = 0.02


def field(words: list[int], number: int, bits: int) -> int:
    """Number `number` of a column of words as AutoGPTQ packs it: 3 bits in three words of ten and a bit."""
    words = [word & 0xFFFFFFFF for word in words]
    if bits != 3:
        per_word = 32 // bits
        return words[number // per_word] >> (bits * (number % per_word)) & ((1 << bits) - 1)
    block, place = divmod(number, 32)
    first, second, third = words[3 * block : 3 * block + 3]
    if place < 10:
        return first >> (3 * place) & 7
    if place == 10:
        return first >> 30 | (second & 1) << 2
    if place < 21:
        return second >> (3 * (place - 11) + 1) & 7
    if place == 21:
        return second >> 31 | (third & 3) << 1
    return third >> (3 * (place - 22) + 2) & 7


def published(tensors: dict[str, Tensor], bits: int, less_one: bool) -> Tensor:
    """scales[g, o] * (code - zero), with g = g_idx[i]; v1 keeps zero points less one."""
    codes, zeros = tensors["qweight"].t().tolist(), tensors["qzeros"].tolist()
    groups, scales = tensors["g_idx"].tolist(), tensors["scales"].float()
    O, I = len(codes), len(groups)
    weight = torch.empty(O, I)
    for o in range(O):
        for i in range(I):
            zero = field(zeros[groups[i]], o, bits) + less_one
            weight[o, i] = scales[groups[i], o] * (field(codes[o], i, bits) - zero)
    return weight


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_tensors_are_those_of_the_published_layout(bits: int, symmetric: bool) -> None:
    layout, scheme = Gptq(), Scheme(bits, 16, symmetric)
    ordered = bits == 4
    weight = rounded(torch.randn(32, 64), scheme, ordered=ordered, dtype=torch.float16)
    config = layout.to_config({"x": Stored(scheme, ordered)}, [])
    assert config["checkpoint_format"] == ("gptq" if symmetric else "gptq_v2")
    assert config["desc_act"] == ordered
    stored = layout.from_config(config, ["x"])["x"]
    tensors = layout.to_tensors(weight, stored, torch.bfloat16)
    assert tensors["scales"].dtype == torch.float16
    assert published(tensors, bits, less_one=symmetric).equal(weight.dequantize())
    assert {part: tuple(t.shape) for part, t in tensors.items()} == layout.shapes(stored, (32, 64))
    again = layout.from_tensors(tensors, stored, (32, 64))
    assert again.dequantize().equal(weight.dequantize())
    assert again.scheme == scheme and (again.group_I is not None) == ordered


def test_zero_points_of_others_in_v1_are_read() -> None:
    """Ours are never written so: older readers take a zero point of 0 for one of 16."""
    layout, stored = Gptq(), Stored(Scheme(4, symmetric=False))
    weight = rounded(torch.rand(32, 64) - 0.1, stored.scheme, dtype=torch.float16)
    v1 = Stored(stored.scheme, form="v1")
    tensors = layout.to_tensors(weight, v1, torch.float16)
    assert layout.from_tensors(tensors, v1, (32, 64)).dequantize().equal(weight.dequantize())
    said_symmetric = Stored(Scheme(4), form="v1")
    again = layout.from_tensors(tensors, said_symmetric, (32, 64))
    assert not again.scheme.symmetric and again.dequantize().equal(weight.dequantize())


def test_layers_that_differ_are_in_dynamic() -> None:
    layout = Gptq()
    names = [f"model.layers.{i}.mlp.up_proj" for i in range(12)]
    matrices = {name: Stored(Scheme(4, 32)) for name in names}
    matrices[names[1]] = Stored(Scheme(8, None, symmetric=False))
    config = layout.to_config(matrices, ["lm_head", "model.layers.0.mlp.gate"])
    assert json.loads(json.dumps(config["dynamic"])) == {
        r"-:^model\.layers\.0\.mlp\.gate$": {},
        r"+:^model\.layers\.1\.mlp\.up_proj$": {"bits": 8, "group_size": -1, "sym": False},
    }
    assert layout.from_config(config, [*names, "model.layers.0.mlp.gate"]) == matrices
    config["modules_in_block_to_quantize"] = [["self_attn.q_proj"], ["mlp.down_proj"]]
    assert not layout.from_config(config, names)


@pytest.mark.parametrize(
    ("scheme", "shape", "message"),
    [
        (Scheme(8, activations="int8"), (32, 32), "take the compressed-tensors layout"),
        (Scheme(4), (48, 80), "widths that 32 divides"),
        (Scheme(4, 128), (32, 64), "groups of 128"),
    ],
)
def test_what_it_does_not_hold_is_refused(
    scheme: Scheme, shape: tuple[int, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Gptq().check(Stored(scheme), shape)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 5}, "bits 5"),
        ({"bits": None}, "bits None"),
        ({"group_size": "all"}, "group_size 'all'"),
        ({"lm_head": True}, "lm_head True"),
        ({"checkpoint_format": "marlin"}, "checkpoint_format 'marlin'"),
        ({"dynamic": [1]}, "dynamic"),
        ({"dynamic": {"+:(": {}}}, "pattern"),
        ({"modules_in_block_to_quantize": 3}, "list of lists"),
    ],
)
def test_what_is_not_supported_is_refused(changes: dict[str, Any], message: str) -> None:
    layout = Gptq()
    config = layout.to_config({"model.layers.0.x": Stored(Scheme(4, 16))}, [])
    with pytest.raises(UserError, match=message):
        layout.from_config({**config, **changes}, ["model.layers.0.x"])


def test_groups_that_are_none_are_refused() -> None:
    layout, stored = Gptq(), Stored(Scheme(4, 16), ordered=True)
    weight = rounded(torch.randn(32, 64), stored.scheme, ordered=True)
    tensors = layout.to_tensors(weight, stored, torch.float16)
    with pytest.raises(UserError, match="outside 0 to 3"):
        layout.from_tensors({**tensors, "g_idx": tensors["g_idx"] + 1}, stored, (32, 64))
    del tensors["g_idx"]
    with pytest.raises(UserError, match="g_idx is missing"):
        layout.from_tensors(tensors, stored, (32, 64))


READ = """
import sys, torch, transformers
from safetensors.torch import load_file, save_file
from gptqmodel import BACKEND, GPTQModel
for folder in sys.argv[1:]:
    if folder.endswith("mixed"):  # transformers does not pass `dynamic` on
        model = GPTQModel.load(folder, device="cpu", backend=BACKEND.GPTQ_TORCH).model
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, device_map="cpu"
        )
    ids = load_file(folder + "/ids.st")["ids"]
    logits = model.eval()(ids).logits.detach().float().contiguous()
    save_file({"logits": logits}, folder + "/theirs.st")
"""


@pytest.mark.slow
def test_gptqmodel_reads_our_folders(tokenizer_folder: Path, tmp_path: Path) -> None:
    if not ORACLE.exists():
        pytest.skip(f"no environment with gptqmodel at {ORACLE}; set MENGYA_GPTQ_PYTHON")
    model = random_model(
        tiny_config("Qwen3", hidden_size=64, intermediate_size=128, vocab_size=128)
    )

    def mixed(name: str) -> Scheme:
        return Scheme(8, 32) if "o_proj" in name else Scheme(4, 32)

    schemes: dict[str, Any] = {f"{bits}_bits": Scheme(bits, 32) for bits in (2, 3, 4, 8)}
    schemes |= {f"{bits}_zeros": Scheme(bits, 32, symmetric=False) for bits in (2, 3, 4)}
    schemes |= {"row": Scheme(4), "ordered": Scheme(4, 32), "mixed": mixed}
    ids = (torch.arange(20) * 5 % 101)[None]
    for name, scheme in schemes.items():
        folder = tmp_path / name
        write_rounded(model, scheme, "gptq", tokenizer_folder, folder, ordered=name == "ordered")
        save_file({"ids": ids}, folder / "ids.st")
    environment = {**os.environ, "GPTQMODEL_CPU_WORKERS": "2"}
    environment.pop("PYTHONPATH", None)
    command = [str(ORACLE), "-c", READ, *(str(tmp_path / name) for name in schemes)]
    subprocess.run(command, env=environment, check=True, capture_output=True, cwd=tmp_path)
    for name in schemes:
        logits = load_dequantized(tmp_path / name)(ids).head_output
        theirs = load_file(tmp_path / name / "theirs.st")["logits"]
        assert (theirs - logits).norm() < BOUND * logits.norm(), name

"""Our folders are stock folders, stock folders are ours, and a wrong one is refused by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from mengya.models.hf.config import load_model_config
from tests.helpers.oracle import assert_near
from tests.helpers.random_model import random_model, tiny_config


def names_in(file: Path) -> set[str]:
    with safe_open(file, framework="pt") as tensors:
        return set(tensors.keys())


@torch.no_grad()
def test_transformers_reads_our_folder(
    model: CausalLM, input_ids: torch.Tensor, tmp_path: Path
) -> None:
    save_hf_folder(
        model, model.config, tmp_path, bos_token_id=0, eos_token_id=[2, 0], pad_token_id=3
    )
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    theirs, report = loaded
    assert not any(report.values())  # nothing missing, unexpected or of another shape
    assert_near(theirs.eval()(input_ids).logits, model(input_ids).head_output)
    assert theirs(input_ids).logits.shape[-1] == model.config.vocab_size
    assert theirs.generation_config.eos_token_id == [2, 0]
    assert theirs.config.bos_token_id == 0 and theirs.config.pad_token_id == 3


@torch.no_grad()
def test_we_read_our_folder(model: CausalLM, input_ids: torch.Tensor, tmp_path: Path) -> None:
    save_hf_folder(model.state_dict(), model.config, tmp_path)
    again = load_causal_lm(tmp_path)
    assert again.training and again.config == model.config
    assert list(again.state_dict()) == list(model.state_dict())
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))
    tied = again.lm_head.weight is again.model.embed_tokens.weight
    assert tied == model.config.tie_word_embeddings


@pytest.mark.parametrize("shard", ["1GB", "30KB"])
@torch.no_grad()
def test_stock_folders_are_read(
    model: CausalLM, oracle: Any, input_ids: torch.Tensor, tmp_path: Path, shard: str
) -> None:
    oracle.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "30KB")
    ours = load_causal_lm(tmp_path).eval()
    torch.testing.assert_close(ours(input_ids).head_output, oracle(input_ids).logits)


def test_a_tied_output_layer_is_not_saved(model: CausalLM, tmp_path: Path) -> None:
    save_hf_folder(model, model.config, tmp_path)
    saved = "lm_head.weight" in names_in(tmp_path / "model.safetensors")
    assert saved is not model.config.tie_word_embeddings


def test_config_json_is_right_for_transformers_4(model: CausalLM, tmp_path: Path) -> None:
    save_hf_folder(model, model.config, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["rope_theta"] == values["rope_parameters"]["rope_theta"] == 5000.0
    assert values["torch_dtype"] == values["dtype"] == "float32"
    if model.config.num_experts:
        assert 5 in (values.get("num_experts"), values.get("n_routed_experts", 6) - 1)
        assert "model.layers.1.mlp.experts.4.up_proj.weight" in names_in(
            tmp_path / "model.safetensors"
        )
    if model.config.scoring_func == "sigmoid":
        assert values["num_mtp_layers"] == values["num_nextn_predict_layers"] == 0
    if values["model_type"] == "glm4_moe":
        assert values["partial_rotary_factor"] == 1.0
        assert values["rope_parameters"]["partial_rotary_factor"] == 1.0


def test_a_config_of_transformers_4_is_read(config: ModelConfig, tmp_path: Path) -> None:
    save_hf_folder(CausalLM(config), config, tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    del values["rope_parameters"], values["dtype"]
    path.write_text(json.dumps({**values, "rope_scaling": None}))
    assert load_model_config(tmp_path) == config


def test_experts_stacked_on_disk_are_read_too(tmp_path: Path) -> None:
    model = random_model(tiny_config("Qwen3Moe"))
    save_hf_folder(model, model.config, tmp_path)
    stacked = {n: t.clone() for n, t in model.state_dict().items() if n != "lm_head.weight"}
    save_file(stacked, tmp_path / "model.safetensors")
    again = load_causal_lm(tmp_path).state_dict()
    assert all(map(torch.equal, again.values(), model.state_dict().values()))


def test_saving_in_bfloat16_halves_the_file(model: CausalLM, tmp_path: Path) -> None:
    save_hf_folder(model, model.config, tmp_path, torch.bfloat16)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    stored = load_file(tmp_path / "model.safetensors")
    for name, tensor in stored.items():  # the bias of a router stays exact
        exact = name.endswith("e_score_correction_bias")
        assert tensor.dtype == (torch.float32 if exact else torch.bfloat16)
    assert load_causal_lm(tmp_path).lm_head.weight.dtype == torch.float32
    half = load_causal_lm(tmp_path, dtype=torch.bfloat16)
    assert half.lm_head.weight.dtype == torch.bfloat16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good folder, for the tests to spoil."""
    config = ModelConfig(vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=2)
    save_hf_folder(CausalLM(config), config, tmp_path)
    return tmp_path


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


LLAMA3 = {
    "rope_theta": 1e4, "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"model_type": None, "architectures": None}, "supported: Qwen3ForCausalLM"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported (only 'silu')"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"rope_parameters": {**LLAMA3, "rope_type": "llama3"}}, "rope_parameters.rope_type"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0.5}}, "rope_parameters.factor"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_a_config_that_is_not_ours_is_refused(
    folder: Path, changes: dict[str, Any], reason: str
) -> None:
    change_config(folder, **changes)
    with pytest.raises(UserError) as refused:
        load_causal_lm(folder)
    assert reason in str(refused.value) and "config.json" in str(refused.value)


@pytest.mark.parametrize("content", ["{", "[1]", '"text"'])
def test_a_broken_config_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        load_causal_lm(folder)


@pytest.mark.parametrize("keep", [0, 7, 100, 5000])
def test_truncated_weights_are_refused(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        load_causal_lm(folder)


def test_garbage_in_the_header_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[8:60] = bytes(range(52))
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        load_causal_lm(folder)


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    good = load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({n: t for n, t in good.items() if n != name}, file)
    with pytest.raises(UserError, match=f"1 tensors are missing, such as {name}"):
        load_causal_lm(folder)
    save_file({**good, name: torch.zeros(3, 3)}, file)
    with pytest.raises(UserError, match=rf"{name} has shape \[3, 3\].*\[16, 16\]"):
        load_causal_lm(folder)
    save_file({**good, "model.visual.weight": torch.zeros(1)}, file)
    with pytest.raises(UserError, match=r"such as model\.visual\.weight"):
        load_causal_lm(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    with pytest.raises(UserError, match=r"b\.safetensors is damaged or missing"):
        load_causal_lm(folder)
    index.write_text("{}")
    with pytest.raises(UserError, match="not a shard index"):
        load_causal_lm(folder)


def test_a_shard_index_cannot_point_outside_its_folder(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../outside.safetensors"}}))
    with pytest.raises(UserError, match="outside"):
        load_causal_lm(folder)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_pickled_weights_are_never_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        load_causal_lm(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(UserError, match=r"pytorch_model\.bin.*save_pretrained"):
        load_causal_lm(folder)
    assert not (folder / "exploded").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/config\.json does not exist"):
        load_causal_lm(tmp_path / "nowhere")

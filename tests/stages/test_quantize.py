"""`mengya quantize`: what it writes, that it resumes to the same bytes, and every refusal before work."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mengya.config import load_config
from mengya.errors import UserError
from mengya.export.hub.files import files_to_push
from mengya.export.hub.proven import check_proven
from mengya.models.hf.checkpoint import load_causal_lm, write_folder
from mengya.models.quantized.load import load_dequantized
from mengya.quantization.driver import QuantizedLayer
from mengya.quantization.layer_store import LayerStore
from mengya.stages.quantize import QuantizeConfig, run
from mengya.tokenizer.load import load_tokenizer
from tests.helpers.trained_model import Trained
from tests.quantization.conftest import trained

__all__ = ["trained"]


def quantize(trained: Trained, out: Path, **keys: Any) -> dict[str, Any]:
    """The record of what was written."""
    texts = {} if "calibration" in keys or keys.get("method") in ("rtn", "llm_int8") else {
        "calibration": {"texts": trained.texts, "num_sequences": 48, "sequence_length": 64}
    }  # fmt: skip
    # Of so small a model two bits less change many answers.
    bounds = {"greedy_agreement": 0, "logit_error_max": 10, "nats_rise": 1}
    fixed = {
        "checkpoint": trained.folder,
        "out": out,
        "device": "cpu",
        "parity": {"bounds": bounds},
    }
    given = {**fixed, **texts, **keys}
    run(load_config(QuantizeConfig, None, given))
    return json.loads((out / "quantization.json").read_text("utf-8"))


def cost(trained: Trained, folder: Path) -> float:
    """Nats per token between the full model and the quantized one."""
    return trained.divergence(load_dequantized(folder))


def digests(folder: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.is_file()
    }


def test_awq_has_less_error_in_its_layers_than_rounding(trained: Trained, tmp_path: Path) -> None:
    record = quantize(trained, tmp_path / "awq", method="awq", bits=3, group_size=32)
    errors = [(layer["error"], layer["rtn_error"]) for layer in record["layers"]]
    assert sum(ours for ours, _ in errors) < 0.95 * sum(rounded for _, rounded in errors), errors


def test_gptq_costs_little_and_beats_rounding_at_3_bits(trained: Trained, tmp_path: Path) -> None:
    costs = {}
    for method in ("rtn", "gptq"):
        quantize(trained, tmp_path / method, method=method, bits=3, group_size=32)
        costs[method] = cost(trained, tmp_path / method)
    assert costs["gptq"] < costs["rtn"] / 2, costs
    record = quantize(trained, tmp_path / "four", group_size=32)
    assert cost(trained, tmp_path / "four") < costs["gptq"]
    errors = [(layer["error"], layer["rtn_error"]) for layer in record["layers"]]
    assert len(errors) == 14
    assert all(error < rtn for error, rtn in errors)
    assert record["calibration"]["tokens"] == 48 * 64


def test_schemes_and_layouts(trained: Trained, tmp_path: Path) -> None:
    for number, (keys, method, bits) in enumerate(
        [
            ({"method": "llm_int8"}, "bitsandbytes", 8),
            ({"activations": "int8"}, "compressed-tensors", 8),
            ({"activations": "float8", "calibration": {}}, "compressed-tensors", 8),
            ({"layout": "gptq", "symmetric": False}, "gptq", 4),
            ({"activation_order": "group", "group_size": 32}, "gptq", 4),
            ({"group_size": "row", "bits": 8}, "compressed-tensors", 8),
        ]
    ):
        out = tmp_path / str(number)
        record = quantize(trained, out, **keys)
        config = json.loads((out / "config.json").read_text("utf-8"))
        assert config["quantization_config"]["quant_method"] == record["layout"] == method
        assert {layer["bits"] for layer in record["layers"]} == {bits}
        assert cost(trained, out) < 0.05, keys


def test_observed_layers_get_more_bits(trained: Trained, tmp_path: Path) -> None:
    record = quantize(trained, tmp_path / "q", bits=3, mean_bits=3.4, group_size=32)
    assert 3 < record["mean_bits"] <= 3.4
    widths = {layer["name"]: layer["bits"] for layer in record["layers"]}
    assert set(widths.values()) == {3, 4}
    for number in range(2):  # servers merge these
        prefix = f"model.layers.{number}"
        assert len({widths[f"{prefix}.self_attn.{p}_proj"] for p in "qkv"}) == 1
        assert widths[f"{prefix}.mlp.gate_proj"] == widths[f"{prefix}.mlp.up_proj"]
    assert cost(trained, tmp_path / "q") < 0.1


def test_a_killed_run_resumes_to_the_same_bytes(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = {"bits": 3, "mean_bits": 3.4, "group_size": 32}
    quantize(trained, tmp_path / "straight", **keys)
    save = LayerStore.save

    def killed(self: LayerStore, number: int, layer: QuantizedLayer) -> None:
        if number == 1:
            raise KeyboardInterrupt
        save(self, number, layer)

    out = tmp_path / "resumed"
    with monkeypatch.context() as patch:
        patch.setattr(LayerStore, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            quantize(trained, out, **keys)
    assert not out.exists()
    assert (tmp_path / ".resumed.mengya-partial" / ".layers" / "layer-00000.safetensors").is_file()
    capsys.readouterr()
    quantize(trained, out, **keys)
    assert "resuming after 1 layers" in capsys.readouterr().err
    assert digests(out) == digests(tmp_path / "straight")
    assert not (out / ".layers").exists()
    assert not list(tmp_path.glob(".*partial"))


def test_unfinished_work_of_other_settings_is_not_taken(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("mengya.stages.quantize.write_quantized_folder", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            quantize(trained, tmp_path / "q", method="rtn")
    quantize(trained, tmp_path / "q", method="rtn", bits=3)
    assert "of a run with other settings or inputs: starting again" in capsys.readouterr().err
    quantize(trained, tmp_path / "again", method="rtn", bits=3)
    assert digests(tmp_path / "q") == digests(tmp_path / "again")


def test_a_missed_bound_is_not_published_and_the_layers_are_kept(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "q"
    strict = {"bounds": {"logit_error_mean": 1e-6}}
    with pytest.raises(UserError, match=r"parity\.bounds\.logit_error_mean="):
        quantize(trained, out, method="rtn", parity=strict)
    assert not out.exists()
    quantize(trained, out, method="rtn")
    assert "resuming after 2 layers" in capsys.readouterr().err
    assert json.loads((out / "parity.json").read_text("utf-8"))


def _interrupted(*arguments: object, **keys: object) -> None:
    raise KeyboardInterrupt


def refused(trained: Trained, out: Path, **keys: Any) -> str:
    with pytest.raises(UserError) as error:
        quantize(trained, out, **keys)
    assert not out.exists() or (out / "kept").exists()
    assert not list(out.parent.glob(".*partial"))
    return str(error.value)


def test_all_problems_at_once(trained: Trained, tmp_path: Path) -> None:
    said = refused(
        trained, tmp_path / "q", group_size=128, bits=4, mean_bits=3,
        calibration={"sequence_length": 500},
    )  # fmt: skip
    assert said.startswith("5 problems with `mengya quantize")
    assert "method=gptq needs text" in said
    assert "mean_bits=3 must be above bits=4, which every layer has at least; write bits=2" in said
    assert "calibration.sequence_length=500 is above the model's context of 128" in said
    assert (
        "group_size=128 does not divide the inputs of model.layers.0.self_attn.q_proj (64 inputs)"
        in said
    )
    assert "write group_size=64 or group_size=32 or group_size=row" in said


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"method": "llm_int8", "bits": 4}, "has weights of 8 bits; leave bits out"),
        ({"method": "llm_int8", "group_size": 64}, "has a scale for each row; leave group_size out"),
        ({"method": "llm_int8", "activations": "int8"}, "method=llm_int8 has its own"),
        ({"activations": "float8", "method": "gptq"}, "float8 numbers are only rounded; write method=rtn"),
        ({"activations": "int8", "symmetric": False}, "no zero points; leave it out"),
        ({"activations": "int8", "mean_bits": 8}, "all layers have 8 bits here; leave it out"),
        ({"method": "gptq", "calibration": {}}, "needs text that the model is calibrated on"),
        ({"layout": "bitsandbytes"}, "take the compressed-tensors layout"),
        ({"layout": "gptq", "activations": "int8"}, "take the compressed-tensors layout"),
        ({"activation_order": "group", "layout": "compressed-tensors"}, "activation"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(
    trained: Trained, tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    assert message in refused(trained, tmp_path / "q", **keys)


def test_an_adapter_is_merged_first(trained: Trained, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}", "utf-8")
    said = refused(trained, tmp_path / "q", checkpoint=adapter)
    assert f"merge it first: mengya merge {adapter} out=FOLDER" in said


def test_a_quantized_model_is_not_quantized_again(trained: Trained, tmp_path: Path) -> None:
    quantize(trained, tmp_path / "q", method="rtn")
    said = refused(trained, tmp_path / "again", checkpoint=tmp_path / "q")
    assert "is quantized already (compressed-tensors); name the full model" in said


def test_no_room_on_the_disk_is_said_before(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("mengya.quantization.checks.shutil.disk_usage", lambda path: usage)
    assert "MB are free there; free some space" in refused(trained, tmp_path / "q")


def test_what_is_there_is_replaced_on_request_only(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "q"
    quantize(trained, out, method="rtn")
    with pytest.raises(UserError, match="overwrite=true"):
        quantize(trained, out, method="rtn", bits=8)
    assert quantize(trained, out, method="rtn", bits=8, overwrite=True)["scheme"]["bits"] == 8
    (out / "kept").write_text("mine", "utf-8")
    assert "did not write: kept" in refused(trained, out, method="rtn", overwrite=True)


def test_a_broken_model_is_named(trained: Trained, tmp_path: Path) -> None:
    model = load_causal_lm(trained.folder)
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.up_proj.weight")[0, 0] = float("nan")
    tokenizer = load_tokenizer(trained.folder)
    write_folder(model, tokenizer, trained.folder, torch.float32, tmp_path / "broken")
    said = refused(trained, tmp_path / "q", checkpoint=tmp_path / "broken", method="rtn")
    assert "model.layers.1.mlp.up_proj.weight holds NaN or infinity" in said


def test_what_a_killed_run_left_half_written_is_not_published(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="logit_error_mean"):
        quantize(
            trained, tmp_path / "q", method="rtn", parity={"bounds": {"logit_error_mean": 1e-6}}
        )
    partial = tmp_path / ".q.mengya-partial"
    (partial / "model-00001.safetensors").write_bytes(b"half")  # kill -9 in the middle of a file
    (partial / ".config.json.123.tmp").write_text("{", "utf-8")
    (partial / ".layers" / ".layer-00001.safetensors.123.tmp").write_bytes(b"half")
    quantize(trained, tmp_path / "q", method="rtn")
    assert "resuming after 2 layers" in capsys.readouterr().err
    quantize(trained, tmp_path / "straight", method="rtn")
    assert digests(tmp_path / "q") == digests(tmp_path / "straight")


def test_nothing_is_written_into_the_checkpoint(trained: Trained, tmp_path: Path) -> None:
    said = refused(trained, trained.folder / "q", method="rtn")
    assert f"write out={trained.folder}-q" in said


def test_what_can_be_pushed_names_no_folder_of_this_machine(
    trained: Trained, tmp_path: Path
) -> None:
    calibration = {"texts": trained.texts, "conversations": trained.conversations}
    bounds = {"greedy_agreement": 0, "logit_error_max": 10, "nats_rise": 1}
    parity = {"bounds": bounds, "texts": trained.texts, "max_characters": 200}
    keys = {"calibration": {**calibration, "num_sequences": 4}, "parity": parity, "method": "rtn"}
    quantize(trained, tmp_path / "q", **keys)
    check_proven(tmp_path / "q")
    for file in files_to_push(tmp_path / "q"):
        for place in (tmp_path, trained.folder.parent):
            assert str(place).encode() not in file.path.read_bytes(), file.name
    record = json.loads((tmp_path / "q/quantization.json").read_text("utf-8"))
    assert record["calibration"]["texts"] == [trained.texts.name]
    proof = json.loads((tmp_path / "q/parity.json").read_text("utf-8"))
    assert proof["source"]["checkpoint"] == trained.folder.name
    assert proof["held_out"]["name"] == trained.texts.name

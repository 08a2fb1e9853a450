"""`mengya export to=hf`: what is written, what is refused, and that nothing is left of what is not proven."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import mengya
from mengya.config import load_config
from mengya.errors import UserError
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.models.quantized.load import load_dequantized
from mengya.stages import quantize
from mengya.stages.export import ExportConfig, run
from tests.helpers.stage_fixtures import StageFixtures


def export(checkpoint: Path, out: Path, **keys: Any) -> dict[str, Any]:
    return mengya.export_model(checkpoint, to="hf", out=out, **keys)


@pytest.fixture(scope="module")
def trained(fixtures: StageFixtures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of LoRA over the base model."""
    run_dir = tmp_path_factory.mktemp("runs") / "my-run"
    settings = fixtures.settings("conversation", run_dir, max_steps=2, lora={"rank": 2})
    return mengya.sft(**{**settings, "loop": {"log_every": 1, "save_every": 2}}).checkpoint


def test_a_run_becomes_a_folder_that_transformers_reads(trained: Path, tmp_path: Path) -> None:
    proof = export(trained.parents[1], tmp_path / "out", hf={"dtype": "bfloat16"})
    assert proof["passed"] and proof["readers"][0]["program"].startswith("transformers ")
    out = tmp_path / "out"
    assert json.loads((out / "parity.json").read_text(encoding="utf-8")) == proof
    assert proof["source"]["checkpoint"] == f"my-run/{trained.resolve().name}"
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    assert model.generation_config.temperature == 0.8 and model.generation_config.do_sample
    assert AutoTokenizer.from_pretrained(out).chat_template
    assert not (out / "adapter_config.json").exists()  # merged
    card = ModelCard.load(out / "README.md")
    header = card.data.to_dict()
    assert header["license"] == "unknown" and header["library_name"] == "transformers"
    assert "# my-run" in card.text and "sft (LoRA, r = 2)" in card.text
    assert "A chat model" in card.text and "apply_chat_template" in card.text
    assert "Not evaluated" in card.text and "| same likeliest token" in card.text
    assert str(tmp_path.parent) not in card.text  # paths of this machine


def test_the_weights_are_those_of_the_checkpoint(fixtures: StageFixtures, tmp_path: Path) -> None:
    export(fixtures.base, tmp_path / "out", sampling={"temperature": 0})
    before, after = (load_causal_lm(f).state_dict() for f in (fixtures.base, tmp_path / "out"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    values = json.loads((tmp_path / "out/generation_config.json").read_text(encoding="utf-8"))
    assert values["do_sample"] is False and "temperature" not in values


def test_a_quantized_folder_is_made_full(fixtures: StageFixtures, tmp_path: Path) -> None:
    overrides = {
        "checkpoint": fixtures.base,
        "out": tmp_path / "small",
        "method": "rtn",
        "group_size": 32,
    }
    quantize.run(load_config(quantize.QuantizeConfig, None, overrides))
    export(tmp_path / "small", tmp_path / "out", hf={"dtype": "float32"})
    weights = load_causal_lm(tmp_path / "out").state_dict()
    expected = load_dequantized(tmp_path / "small").state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "Rounded to 4 bits (rtn)" in card


def test_nothing_is_left_of_what_misses_a_bound(fixtures: StageFixtures, tmp_path: Path) -> None:
    keys = {"hf": {"dtype": "bfloat16"}, "parity.bounds.logit_error_mean": 1e-9}
    with pytest.raises(UserError) as refused:
        export(fixtures.base, tmp_path / "out", **keys)
    assert "logit_error_mean is" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_loosened_bound_is_recorded(fixtures: StageFixtures, tmp_path: Path) -> None:
    proof = export(fixtures.base, tmp_path / "out", **{"parity.bounds.nats_rise": 0.5})
    assert proof["loosened"] == {"nats_rise": 0.5} and proof["bounds"]["nats_rise"] == 0.5
    assert r"nats\_rise = 0.5" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_held_out_text_of_the_user(fixtures: StageFixtures, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("小满在第一天买了三个苹果。", encoding="utf-8")
    shards = fixtures.shards["text"][1]
    text = {"texts": str(tmp_path / "text.txt"), "text_shards": str(shards), "max_characters": 500}
    proof = export(fixtures.base, tmp_path / "out", parity=text)
    assert proof["held_out"]["characters"] == 500 and proof["held_out"]["documents"] > 1
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(UserError, match="no text"):
        export(fixtures.base, tmp_path / "out2", parity={"texts": str(tmp_path / "empty.txt")})


def test_the_folder_is_not_replaced_unasked(fixtures: StageFixtures, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="did not write"):
        export(fixtures.base, tmp_path / "out")
    with pytest.raises(UserError, match="out="):
        export(fixtures.base, fixtures.base)


def test_a_format_that_is_not_there_is_named(fixtures: StageFixtures) -> None:
    with pytest.raises(UserError, match=r"to: .*'hf'"):
        load_config(ExportConfig, None, {"checkpoint": fixtures.base, "to": "exe", "out": "x"})


def test_learned_positions_are_frozen_first(
    tmp_path: Path, tokenizer_folder: Path, tokenizer: Any
) -> None:
    from mengya.models.hf.checkpoint import write_folder
    from tests.helpers.random_model import small_model

    rope = {"rope_type": "clex", "factor": 2.0, "original_max_position_embeddings": 64}
    model = small_model(vocab_size=len(tokenizer), rope_parameters=rope)
    write_folder(model, tokenizer, tokenizer_folder, torch.float32, tmp_path / "clex")
    with pytest.raises(UserError, match=r"mengya merge .* factor=2"):
        run(load_config(ExportConfig, None, {"checkpoint": tmp_path / "clex", "to": "hf",
                                             "out": tmp_path / "out"}))  # fmt: skip


def test_a_broken_checkpoint_and_a_card_that_cannot_be_made_are_seen_before_any_work(
    fixtures: StageFixtures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Path(shutil.copytree(fixtures.base, tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "about.md").write_bytes(b"\xff\xfe\x80")
    monkeypatch.setattr("mengya.stages.export._write_proven", None)
    with pytest.raises(UserError, match=r"model\.norm\.weight holds NaN"):
        export(broken, tmp_path / "out")
    with pytest.raises(UserError, match="is not text in UTF-8"):
        export(fixtures.base, tmp_path / "out", card={"about": tmp_path / "about.md"})
    with pytest.raises(UserError, match=r"is inside the source .* write out="):
        export(broken, broken / "gguf")
    assert not (tmp_path / "out").exists()

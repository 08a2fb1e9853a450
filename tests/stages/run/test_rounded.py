"""Runs with rounded weights: pretraining, fine-tuning, resumed, packed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mengya.errors import UserError
from mengya.models.config.quantization import TrainedQuantization
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.models.hf.config import load_model_config
from mengya.models.hf.open_checkpoint import open_checkpoint, standard_folder
from mengya.runtime.jsonl import read_steps
from mengya.stages import pretrain, quantize, sft
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.quantize import QuantizeConfig
from mengya.stages.run.assemble import check_rounding
from mengya.stages.sft import SftConfig
from mengya.training.execution import Execution
from tests.helpers.several_processes import losses, make_config, recipe, run_together
from tests.helpers.stage_fixtures import MODEL, StageFixtures

BITS: dict[str, Any] = {"bits": 2, "group_size": 16}
CPU = torch.device("cpu")


def validation_nll(run_dir: Path) -> float:
    return [
        m["validation/nll"] for m in read_steps(run_dir / "metrics.jsonl") if "validation/nll" in m
    ][-1]


def test_pretrain_then_sft_then_pack(fixtures: StageFixtures, tmp_path: Path) -> None:
    """One scheme from the first step to the packed folder, and validated as it is used."""
    model = {**MODEL, "vocab_size": 400, "quantization": "ternary"}
    first = fixtures.settings("text", tmp_path / "first", max_steps=4, model=model)
    assert pretrain.run(PretrainConfig(**first))
    checkpoint = tmp_path / "first/checkpoints/latest"
    assert load_model_config(checkpoint).quantization == TrainedQuantization(number="ternary")

    second = fixtures.settings(
        "conversation", tmp_path / "second", max_steps=2, init_from=checkpoint
    )
    assert sft.run(SftConfig(**second))
    assert load_model_config(tmp_path / "second/checkpoints/latest").quantization is not None
    quantize.run(QuantizeConfig(checkpoint=tmp_path / "second", out=tmp_path / "small"))
    assert "bitnet" in (tmp_path / "small/config.json").read_text()


def test_a_full_model_goes_on_in_two_bits(fixtures: StageFixtures, tmp_path: Path) -> None:
    """The validation loss is that of the rounded weights, and the packed folder has it."""
    settings = fixtures.settings(
        "text", tmp_path / "run", max_steps=4, init_from=fixtures.base, quantization=BITS
    )
    assert pretrain.run(PretrainConfig(**settings))
    quantize.run(QuantizeConfig(checkpoint=tmp_path / "run", out=tmp_path / "small"))
    trained, tokenizer = open_checkpoint(tmp_path / "run", CPU, torch.float32)
    packed, _ = open_checkpoint(tmp_path / "small", CPU, torch.float32)
    ids = torch.tensor([tokenizer.encode("小满在第3天买了5个苹果，小满很高兴。")])
    with torch.no_grad():
        expected = load_causal_lm(tmp_path / "run/checkpoints/latest").eval()(ids).head_output
        for model in (trained, packed):
            torch.testing.assert_close(model(ids).head_output, expected, rtol=1e-4, atol=1e-5)
    with standard_folder(tmp_path / "run") as folder:
        values = json.loads((folder / "config.json").read_text())
        assert "trained_quantization" not in values
        with torch.no_grad():
            found = load_causal_lm(folder).eval()(ids).head_output
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"precision": "fp8"}, "write precision=bf16"),
        ({"save_dtype": "bfloat16"}, "write save_dtype=float32"),
    ],
    ids=["fp8", "save_dtype"],
)
def test_what_would_round_other_weights_is_refused(
    more: dict[str, Any], message: str, fixtures: StageFixtures, tmp_path: Path
) -> None:
    settings = fixtures.settings(
        "text", tmp_path / "run", max_steps=1, init_from=fixtures.base, quantization=BITS, **more
    )
    with pytest.raises(UserError, match=message):
        pretrain.run(PretrainConfig(**settings))


def test_engines_that_gather_half_precision_are_refused(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    settings = fixtures.settings("text", tmp_path, init_from=fixtures.base, quantization=BITS)
    config = PretrainConfig.model_validate(settings | {"strategy": {"name": "fsdp"}})
    with pytest.raises(UserError, match=r"write strategy.name=ddp, or precision=fp32"):
        check_rounding(config, Execution(CPU, torch.bfloat16))
    check_rounding(config, Execution(CPU))


def test_settings_that_contradict(fixtures: StageFixtures, tmp_path: Path) -> None:
    settings = fixtures.settings("text", tmp_path / "run", model=MODEL, quantization="ternary")
    with pytest.raises(ValueError, match=r"write model.quantization"):
        PretrainConfig(**settings)
    settings = fixtures.settings("conversation", tmp_path / "run", lora={}, quantization="ternary")
    with pytest.raises(ValueError, match="write lora=null or quantization=null"):
        SftConfig(**settings)
    settings = fixtures.settings(
        "text",
        tmp_path / "run",
        init_from=fixtures.base,
        quantization={"bits": 2, "group_size": 48},
    )
    with pytest.raises(UserError, match=r"quantization: .*quantization.group_size=32"):
        pretrain.run(PretrainConfig(**settings))


@pytest.mark.slow
def test_two_processes_equal_one(fixtures: StageFixtures, tmp_path: Path) -> None:
    for name, kind in (("ternary", "ternary"), ("int", BITS)):
        model = {**MODEL, "vocab_size": 400, "quantization": kind}
        one = make_config(
            "dense", fixtures, tmp_path / f"{name}-one", 8, model=model, save_dtype="float32"
        )
        assert isinstance(one, PretrainConfig)
        pretrain.run(one)
        two = make_config(
            "dense", fixtures, tmp_path / f"{name}-two", 2, model=model, save_dtype="float32"
        )
        run_together(2, [recipe("pretrain", two)])
        assert losses(tmp_path / f"{name}-two") == pytest.approx(
            losses(tmp_path / f"{name}-one"), rel=2e-2
        )

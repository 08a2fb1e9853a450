"""Yardsticks while a run trains: the figures of its checkpoints, and not a bit of the run changed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mengya.config import load_config
from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.stages import pretrain
from mengya.stages.evaluate import EvaluateConfig, measure
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.run.yardsticks import own_copy
from mengya.training.telemetry.yardsticks import Yardsticks
from tests.helpers.several_processes import make_config, recipe, run_together
from tests.helpers.stage_fixtures import MODEL, StageFixtures
from tests.helpers.training_runs import CASES, final_bytes, stop_after

LOOP: dict[str, Any] = {"log_every": 1, "eval_every": 4, "save_every": 4, "sample_every": 4}
WITH: dict[str, Any] = {
    **LOOP,
    "yardsticks": "reference_text",
    "yardstick_every": 3,
    "yardstick_limit": 1,
}


def lines(run_dir: Path, name: str) -> dict[int, float]:
    read = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in read if name in line}


@pytest.mark.parametrize(
    "case", ["pretrain-sigmoid", "pretrain-ternary", "sft", "sft-lora", "dpo-lora"]
)
def test_a_run_is_the_same_to_the_bit_with_them_and_without(
    case: str, fixtures: StageFixtures, tmp_path: Path
) -> None:
    """Noise on embeddings, dropout and the load of experts would show what they leave behind."""
    stage, config_class, kind, more = CASES[case]
    for name, loop in (("without", LOOP), ("with", WITH)):
        settings = fixtures.settings(kind, tmp_path / name, **more, max_steps=8, loop=loop)
        stage.run(config_class(**settings))
    without, measured = tmp_path / "without", tmp_path / "with"
    assert final_bytes(without) == final_bytes(measured)
    for metric in ("loss", "grad_norm", "validation/loss"):
        assert lines(without, metric) == lines(measured, metric), metric
    assert list(lines(measured, "yardstick/reference_text")) == [3, 6, 8]
    assert not lines(without, "yardstick/reference_text")


def test_the_figure_is_that_of_the_checkpoint(fixtures: StageFixtures, tmp_path: Path) -> None:
    more: dict[str, Any] = {"model": {**MODEL, "vocab_size": 400}, "max_steps": 4}
    settings = fixtures.settings("text", tmp_path / "run", **more, loop=WITH)
    pretrain.run(PretrainConfig(**settings))
    typed = ["yardsticks=reference_text", "yardstick.limit=1", "device=cpu"]
    config = load_config(EvaluateConfig, None, [f"checkpoint={tmp_path / 'run'}", *typed])
    for measurement in measure(config).yardsticks["reference_text"]:
        logged = lines(tmp_path / "run", f"yardstick/{measurement.name}")
        if measurement.unit == "bits/byte":
            assert not logged
        else:
            assert logged[4] == pytest.approx(measurement.value, rel=1e-6)
    tokens = lines(tmp_path / "run", "tokens")
    assert tokens[3] < tokens[4]
    assert 0 < lines(tmp_path / "run", "yardstick_share")[4] < 1


def test_a_resumed_run_has_each_of_them_once(fixtures: StageFixtures, tmp_path: Path) -> None:
    more: dict[str, Any] = {"model": {**MODEL, "vocab_size": 400}, "max_steps": 12}
    for name in ("straight", "parts"):
        settings = fixtures.settings("text", tmp_path / name, **more, loop=WITH)
        config = PretrainConfig(**settings)
        if name == "parts":
            watcher = stop_after(tmp_path / name, 5)
            pretrain.run(config)
            watcher.join()
            config = config.model_copy(update={"resume": True})
        pretrain.run(config)
    straight, parts = (
        lines(tmp_path / name, "yardstick/reference_text") for name in ("straight", "parts")
    )
    assert straight == parts and list(parts) == [3, 6, 9, 12]


def test_sharded_weights_are_gathered_for_them(fixtures: StageFixtures, tmp_path: Path) -> None:
    found = {}
    for name, processes in (("auto", 1), ("fsdp", 2)):
        strategy = {"name": name}
        more: dict[str, Any] = {"loop": WITH, "max_steps": 3, "save_dtype": "float32"}
        config = make_config(
            "dense", fixtures, tmp_path / name, micro=4 // processes, strategy=strategy, **more
        )
        run_together(processes, [recipe("pretrain", config)])
        found[name] = lines(tmp_path / name, "yardstick/reference_text")
    assert found["fsdp"] == pytest.approx(found["auto"], rel=1e-5) and list(found["auto"]) == [3]


def test_they_measure_a_copy_that_shares_no_memory() -> None:
    """The batch engine packs the weights of its model in place, which an optimizer holds."""
    model = CausalLM(ModelConfig(vocab_size=50, **MODEL))
    copied = own_copy(model)
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not own & {tensor.data_ptr() for tensor in copied.state_dict().values()}
    assert copied.lm_head.weight is copied.model.embed_tokens.weight  # still tied
    assert model.training and not copied.training
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), copied.parameters(), strict=True)
    )


def test_an_unknown_one_is_refused_before_anything_is_read(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    more: dict[str, Any] = {"model": {**MODEL, "vocab_size": 400}}
    loop = {**LOOP, "yardsticks": ["reference_txt"]}
    settings = fixtures.settings("text", tmp_path / "run", **more, loop=loop)
    with pytest.raises(UserError, match=r"reference_txt is not one of .*reference_text"):
        pretrain.run(PretrainConfig(**settings))


def test_what_does_not_fit_the_model_is_left_out_and_said_once(
    fixtures: StageFixtures, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A base model follows no instructions: 0 would read as a figure, and an error would end the run."""
    loop = {**WITH, "yardsticks": ["stop_in_time", "reference_text"], "yardstick_every": 2}
    settings = fixtures.settings("text", tmp_path / "run", model=MODEL, max_steps=4, loop=loop)
    pretrain.run(PretrainConfig(**settings))
    assert capfd.readouterr().err.count("yardstick stop_in_time is left out: not applicable") == 1
    assert list(lines(tmp_path / "run", "yardstick/reference_text")) == [2, 4]
    assert not lines(tmp_path / "run", "yardstick/stop_in_time")


def test_random_numbers_are_left_alone_and_a_slow_one_is_warned_of_once() -> None:
    model = CausalLM(ModelConfig(vocab_size=50, **MODEL))
    said: list[str] = []

    def slow(model: CausalLM) -> dict[str, float]:
        time.sleep(0.02)
        return {"noise": float(torch.rand(())), "noise/part": 1.0}

    yardsticks = Yardsticks(slow, every=10, say=said.append)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    for step in (10, 20):
        metrics = yardsticks.measure(model, step, time.perf_counter())
    assert torch.equal(torch.rand(3), expected)
    assert metrics["yardstick/noise/part"] == 1.0 and metrics["yardstick_share"] > 0.03
    warnings = [line for line in said if "warning" in line]
    assert len(warnings) == 1 and "loop.yardstick_every=" in warnings[0] and len(said) == 3

"""A run that was stopped and resumed ends in the same bits as one that never stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mengya.config import load_config
from mengya.errors import UserError
from mengya.stages import pretrain, sft
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.sft import SftConfig
from tests.helpers.stage_fixtures import MODEL, StageFixtures
from tests.helpers.training_runs import CASES, LORA, final_bytes, stop_after

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("case", CASES)
def test_stopped_and_resumed_equals_never_stopped(
    case: str, fixtures: StageFixtures, tmp_path: Path
) -> None:
    stage, config_class, kind, more = CASES[case]
    straight = config_class(**fixtures.settings(kind, tmp_path / "straight", **more))
    stage.run(straight)

    watcher = stop_after(tmp_path / "parts", 7)
    parts = config_class(**fixtures.settings(kind, tmp_path / "parts", **more))
    stage.run(parts)
    watcher.join()
    stopped_at = json.loads((tmp_path / "parts/checkpoints/latest/trainer/state.json").read_text())
    assert 7 <= stopped_at["step"] < 40
    with pytest.raises(UserError, match="resume=true"):
        stage.run(parts)
    stage.run(parts.model_copy(update={"resume": True}))

    assert final_bytes(tmp_path / "straight") == final_bytes(tmp_path / "parts")
    assert logged(tmp_path / "straight") == logged(tmp_path / "parts")


def logged(run_dir: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def test_killed_at_random_moments_and_resumed_equals_never_stopped() -> None:
    """SIGKILL, one of two during a save; the script fails on any other byte or a damaged checkpoint."""
    command = [sys.executable, "-m", "tests.helpers.kill_resume", "--kills", "4", "--steps", "60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal to the uninterrupted run" in done.stdout


def test_a_damaged_checkpoint_is_skipped_and_the_run_is_the_same(
    fixtures: StageFixtures, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    more: dict[str, Any] = {"model": {**MODEL, "vocab_size": 400}, "max_steps": 9}
    more["schedule"] = {"name": "constant"}
    more["loop"] = {"log_every": 1, "eval_every": 40, "save_every": 3, "sample_every": 40}
    for name in ("straight", "damaged"):
        pretrain.run(PretrainConfig(**fixtures.settings("text", tmp_path / name, **more)))
    model = tmp_path / "damaged/checkpoints/step-000009/model.safetensors"
    os.truncate(model, model.stat().st_size - 100)
    for name in ("straight", "damaged"):
        longer = {**more, "max_steps": 12, "resume": True}
        pretrain.run(PretrainConfig(**fixtures.settings("text", tmp_path / name, **longer)))
    assert "model.safetensors has" in capfd.readouterr().err
    assert final_bytes(tmp_path / "straight") == final_bytes(tmp_path / "damaged")
    assert logged(tmp_path / "straight") == logged(tmp_path / "damaged")


def test_resume_with_other_data_settings_is_refused_by_name(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    settings = fixtures.settings(
        "text", tmp_path / "run", model={**MODEL, "vocab_size": 400}, max_steps=2
    )
    pretrain.run(PretrainConfig(**settings))
    changed = PretrainConfig(**{**settings, "seed": 1, "resume": True})
    with pytest.raises(UserError, match="seed: was 0, now 1"):
        pretrain.run(changed)


def test_saved_settings_load_back_equal(fixtures: StageFixtures, tmp_path: Path) -> None:
    config = SftConfig(
        **fixtures.settings("conversation", tmp_path / "run", max_steps=2, lora=LORA)
    )
    sft.run(config)
    assert load_config(SftConfig, tmp_path / "run/config.yaml") == config


def test_a_checkpoint_in_bf16_keeps_fp32_weights_next_to_it(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    settings = fixtures.settings("conversation", tmp_path / "run", max_steps=2)
    sft.run(SftConfig(**settings, save_dtype="bfloat16"))
    folder = tmp_path / "run/checkpoints/latest"
    short, master = (
        load_file(folder / "model.safetensors"),
        load_file(folder / "trainer/master.safetensors"),
    )
    for name, tensor in master.items():
        assert (tensor.to(short[name].dtype) == short[name]).all()

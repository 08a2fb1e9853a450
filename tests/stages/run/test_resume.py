"""A run that was stopped and resumed ends in the same bits as one that never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mengya.config import load_config
from mengya.errors import UserError
from mengya.stages import dpo, pretrain, sft
from mengya.stages.dpo import DpoConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.sft import SftConfig
from tests.stages.conftest import MODEL, Nursery

LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}
MOE = {**MODEL, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SIGMOID = {
    **MOE, "scoring_func": "sigmoid", "n_shared_experts": 1, "n_group": 2, "topk_group": 1,
    "first_k_dense_replace": 1, "router_aux_loss_coef": 0.001,
}  # fmt: skip
MUON = {"name": "normuon", "muon": {"lr": 2e-3}}
CASES = {
    "pretrain": (pretrain, PretrainConfig, "text", {"model": {**MODEL, "vocab_size": 400}}),
    "pretrain-moe": (pretrain, PretrainConfig, "text", {"model": {**MOE, "vocab_size": 400}}),
    "pretrain-sigmoid": (
        pretrain, PretrainConfig, "text",
        {"model": {**SIGMOID, "vocab_size": 400}, "save_dtype": "bfloat16"},
    ),
    "pretrain-muon": (
        pretrain, PretrainConfig, "text", {"model": {**MODEL, "vocab_size": 400}, "optimizer": MUON},
    ),
    "pretrain-galore": (
        pretrain, PretrainConfig, "text",
        {
            "model": {**MODEL, "vocab_size": 400},
            "optimizer": {"name": "galore", "lr": 1e-2, "galore": {"rank": 4, "update_every": 7}},
        },
    ),
    "pretrain-ramp": (
        pretrain, PretrainConfig, "text",
        {"model": {**MODEL, "vocab_size": 400}, "batch_ramp": {"start": 2, "steps": 12}, "z_loss": 1e-3},
    ),
    "sft": (sft, SftConfig, "conversation", {"neftune_alpha": 5.0}),
    "sft-lora": (sft, SftConfig, "conversation", {"lora": LORA}),
    "dpo": (dpo, DpoConfig, "preference", {}),
    "dpo-lora": (dpo, DpoConfig, "preference", {"lora": LORA}),
    "sft-bf16-folder": (sft, SftConfig, "conversation", {"save_dtype": "bfloat16"}),
}  # fmt: skip


def stop_after(run_dir: Path, step: int) -> threading.Thread:
    """Send this process SIGTERM once the run has logged `step`."""

    def watch() -> None:
        metrics = run_dir / "metrics.jsonl"
        while not (metrics.is_file() and metrics.read_bytes().count(b'"loss"') >= step):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def final_bytes(run_dir: Path) -> dict[str, bytes]:
    """Every tensor file of the last checkpoint."""
    folder = run_dir / "checkpoints/latest"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("case", CASES)
def test_stopped_and_resumed_equals_never_stopped(
    case: str, nursery: Nursery, tmp_path: Path
) -> None:
    stage, config_class, kind, more = CASES[case]
    straight = config_class(**nursery.settings(kind, tmp_path / "straight", **more))
    stage.run(straight)

    watcher = stop_after(tmp_path / "parts", 7)
    parts = config_class(**nursery.settings(kind, tmp_path / "parts", **more))
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
    script = Path(__file__).parents[3] / "benchmarks/kill_resume.py"
    command = [sys.executable, str(script), "--kills", "4", "--steps", "60"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal to the uninterrupted run" in done.stdout


def test_a_damaged_checkpoint_is_skipped_and_the_run_is_the_same(
    nursery: Nursery, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    more: dict[str, Any] = {"model": {**MODEL, "vocab_size": 400}, "max_steps": 9}
    more["schedule"] = {"name": "constant"}
    more["loop"] = {"log_every": 1, "eval_every": 40, "save_every": 3, "sample_every": 40}
    for name in ("straight", "damaged"):
        pretrain.run(PretrainConfig(**nursery.settings("text", tmp_path / name, **more)))
    model = tmp_path / "damaged/checkpoints/step-000009/model.safetensors"
    os.truncate(model, model.stat().st_size - 100)
    for name in ("straight", "damaged"):
        longer = {**more, "max_steps": 12, "resume": True}
        pretrain.run(PretrainConfig(**nursery.settings("text", tmp_path / name, **longer)))
    assert "model.safetensors has" in capfd.readouterr().err
    assert final_bytes(tmp_path / "straight") == final_bytes(tmp_path / "damaged")
    assert logged(tmp_path / "straight") == logged(tmp_path / "damaged")


def test_resume_with_other_data_settings_is_refused_by_name(
    nursery: Nursery, tmp_path: Path
) -> None:
    settings = nursery.settings(
        "text", tmp_path / "run", model={**MODEL, "vocab_size": 400}, max_steps=2
    )
    pretrain.run(PretrainConfig(**settings))
    changed = PretrainConfig(**{**settings, "seed": 1, "resume": True})
    with pytest.raises(UserError, match="seed: was 0, now 1"):
        pretrain.run(changed)


def test_saved_settings_load_back_equal(nursery: Nursery, tmp_path: Path) -> None:
    config = SftConfig(**nursery.settings("conversation", tmp_path / "run", max_steps=2, lora=LORA))
    sft.run(config)
    assert load_config(SftConfig, tmp_path / "run/config.yaml") == config


def test_a_checkpoint_in_bf16_keeps_fp32_weights_beside_it(
    nursery: Nursery, tmp_path: Path
) -> None:
    settings = nursery.settings("conversation", tmp_path / "run", max_steps=2)
    sft.run(SftConfig(**settings, save_dtype="bfloat16"))
    folder = tmp_path / "run/checkpoints/latest"
    short, master = (
        load_file(folder / "model.safetensors"),
        load_file(folder / "trainer/master.safetensors"),
    )
    for name, tensor in master.items():
        assert (tensor.to(short[name].dtype) == short[name]).all()

"""Two real processes train as one: the same weights, whatever the split into ranks and micro-batches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mengya.config import save_config
from mengya.stages.dpo import DpoConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.run_config import RunConfig
from tests.stages.conftest import MODEL, Nursery

MOE = {**MODEL, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

SIGMOID = {
    **MOE,
    "scoring_func": "sigmoid",
    "n_shared_experts": 1,
}


def command(verb: str, config: RunConfig, processes: int) -> list[str]:
    config.run_dir.parent.mkdir(parents=True, exist_ok=True)
    recipe = config.run_dir.parent / f"{config.run_dir.name}.yaml"
    save_config(config, recipe)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher = (
        [*torchrun, f"--nproc_per_node={processes}", "-m"]
        if processes > 1
        else [sys.executable, "-m"]
    )
    return [*launcher, "mengya", verb, str(recipe), "resume=true"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "checkpoints/latest/model.safetensors")


@pytest.mark.parametrize("case", ["dense", "normuon", "moe", "sigmoid", "dpo"])
def test_two_processes_equal_one(case: str, nursery: Nursery, tmp_path: Path) -> None:
    # AdamW divides by the root of the second moment: with the usual eps of 1e-8 a gradient that is
    # zero but for rounding moves a weight by the whole rate. A large eps leaves the sums to compare.
    more: dict[str, Any] = {"max_steps": 10, "optimizer": {"eps": 1e-3}, "global_batch_size": 8}
    verb, config_class, kind = "pretrain", PretrainConfig, "text"
    if case == "dpo":
        verb, config_class, kind = "dpo", DpoConfig, "preference"
    else:
        shape = {"moe": MOE, "sigmoid": SIGMOID}.get(case, MODEL)
        more["model"] = {**shape, "vocab_size": 400}
    if case == "normuon":
        more["optimizer"] = {**more["optimizer"], "name": "normuon"}
    runs = {}
    for name, processes, micro in (("one", 1, 8), ("accumulated", 1, 2), ("two", 2, 2)):
        settings: dict[str, Any] = nursery.settings(
            kind, tmp_path / name, micro_batch_size=micro, **more
        ) | {"global_batch_size": 8}
        subprocess.run(
            command(verb, config_class(**settings), processes), check=True, env=environment()
        )
        runs[name] = weights(tmp_path / name)
    start = weights_before(nursery) if case == "dpo" else None
    for name in ("accumulated", "two"):
        for key, value in runs["one"].items():
            torch.testing.assert_close(
                runs[name][key], value, rtol=0, atol=1e-6, msg=f"{name} {key}"
            )
    if case == "sigmoid":
        assert runs["one"]["model.layers.0.mlp.gate.e_score_correction_bias"].any()
    if start is not None:
        assert any((runs["one"][k] != start[k]).any() for k in start), "nothing was trained"


def weights_before(nursery: Nursery) -> dict[str, torch.Tensor]:
    return load_file(nursery.base / "model.safetensors")


def test_sigterm_to_torchrun_saves_and_the_other_world_size_goes_on(
    nursery: Nursery, tmp_path: Path
) -> None:
    more: dict[str, Any] = {"model": {**MODEL, "vocab_size": 400}, "max_steps": 3000}
    more["loop"] = {"log_every": 1, "eval_every": 3000, "save_every": 3000, "sample_every": 3000}
    config = PretrainConfig(**nursery.settings("text", tmp_path / "run", **more))
    process = subprocess.Popen(command("pretrain", config, 2), env=environment())
    metrics = tmp_path / "run/metrics.jsonl"
    while process.poll() is None and not (
        metrics.is_file() and metrics.read_text().count("\n") > 5
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    state = tmp_path / "run/checkpoints/latest/trainer/state.json"
    stopped = json.loads(state.read_text())["step"]
    assert 5 < stopped < 3000

    shorter = config.model_copy(update={"max_steps": stopped + 5, "micro_batch_size": 4})
    subprocess.run(command("pretrain", shorter, 1), check=True, env=environment())
    assert json.loads(state.read_text())["step"] == stopped + 5

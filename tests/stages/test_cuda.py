"""Every training stage on a real GPU: bf16, compiled, packed; run by hand with -m gpu."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.stage_fixtures import StageFixtures
from tests.helpers.training_runs import CASES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def losses(run_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize(
    "case", ["pretrain", "pretrain-moe", "pretrain-muon", "sft-lora", "dpo", "dpo-lora"]
)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_compiled_half_precision_follows_fp32_on_the_cpu(
    case: str, precision: str, fixtures: StageFixtures, tmp_path: Path
) -> None:
    stage, config_class, kind, more = CASES[case]
    more = json.loads(json.dumps(more))
    if more.get("lora"):
        more["lora"]["dropout"] = 0.0  # the noise differs between devices
        more["lora"]["trainable_tokens"] = [60, 300]
    if "model" in more:
        more["model"]["head_dim"] = 16
    curves = {}
    for device, settings in (
        ("cpu", {"precision": "fp32"}),
        ("cuda", {"precision": precision, "compile": True}),
    ):
        values = fixtures.settings(kind, tmp_path / device, **more)
        stage.run(config_class(**{**values, "device": device, **settings}))
        curves[device] = losses(tmp_path / device)
    assert len(curves["cpu"]) >= 38  # fp16 may skip a step or two until its scale fits
    assert curves["cuda"][-1] < curves["cuda"][0]
    # Half precision: close to fp32 while the weights are still nearly the same.
    assert curves["cuda"][0] == pytest.approx(curves["cpu"][0], rel=0.02)
    assert curves["cuda"][-1] == pytest.approx(curves["cpu"][-1], rel=0.1)


@pytest.mark.parametrize("compiled", [False, True])
def test_fp8_follows_bf16_and_repeats(
    compiled: bool, fixtures: StageFixtures, tmp_path: Path
) -> None:
    stage, config_class, kind, more = CASES["pretrain"]
    curves = {}
    for precision in ("bf16", "fp8"):
        values = fixtures.settings(kind, tmp_path / precision, **more)
        values |= {"device": "cuda", "precision": precision, "compile": compiled}
        stage.run(config_class(**values))
        curves[precision] = losses(tmp_path / precision)
    assert curves["fp8"] != curves["bf16"]
    assert curves["fp8"][0] == pytest.approx(curves["bf16"][0], rel=0.01)
    assert curves["fp8"][-1] == pytest.approx(curves["bf16"][-1], rel=0.03)
    values |= {"run_dir": tmp_path / "twice"}
    stage.run(config_class(**values))
    assert losses(tmp_path / "twice") == curves["fp8"]


def test_activation_checkpointing_changes_memory_not_results(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    stage, config_class, kind, more = CASES["pretrain"]
    curves = []
    for checkpointing in (False, True):
        values = fixtures.settings(kind, tmp_path / str(checkpointing), **more)
        values |= {"device": "cuda", "precision": "fp32", "gradient_checkpointing": checkpointing}
        stage.run(config_class(**values))
        curves.append(losses(tmp_path / str(checkpointing)))
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


def test_the_power_of_the_gpu_is_logged(fixtures: StageFixtures, tmp_path: Path) -> None:
    pytest.importorskip("pynvml")
    stage, config_class, kind, more = CASES["pretrain"]
    stage.run(config_class(**fixtures.settings(kind, tmp_path, **more, device="cuda")))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    watts = [line["power_watts"] for line in lines if "loss" in line]
    assert all(0 <= each < 2000 for each in watts) and max(watts) > 20

"""Several real processes train as one: the same losses and weights, whatever the engine and the split."""

from __future__ import annotations

import importlib
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from mengya.stages.pretrain import PretrainConfig
from tests.helpers.several_processes import (
    CASES,
    DENSE,
    losses,
    make_config,
    recipe,
    run_together,
    start,
    zero,
)
from tests.helpers.stage_fixtures import StageFixtures

QUICK = ["dense", "sigmoid", "normuon-moe", "sft-lora", "dpo"]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """The trained tensors of the last checkpoint in fp32."""
    folder = run_dir / "checkpoints/latest"
    files = [folder / "adapter_model.safetensors", *folder.glob("trainer/master*.safetensors")]
    file = next((f for f in files if f.is_file()), folder / "model.safetensors")
    return load_file(file) if "-of-" not in file.name else parts(folder)


def parts(folder: Path) -> dict[str, torch.Tensor]:
    from mengya.training.checkpoint.tensor_files import read_tensors

    tensors = read_tensors(folder, "master")
    assert tensors is not None
    return tensors


@pytest.fixture(scope="session")
def one_process(
    fixtures: StageFixtures, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """case -> the folder of its run in this one process, run when first asked for."""
    root = tmp_path_factory.mktemp("one")

    def run(case: str) -> Path:
        if not (root / case).exists():
            verb = CASES[case][0]
            stage = importlib.import_module(f"mengya.stages.{verb}")
            stage.run(make_config(case, fixtures, root / case, micro=8))
        return root / case

    return run


def check_equal(
    cases: Sequence[str],
    processes: int,
    fixtures: StageFixtures,
    one_process: Callable[[str], Path],
    root: Path,
    **over: Any,
) -> None:
    jobs = []
    for case in cases:
        config = make_config(case, fixtures, root / case, micro=4 // processes, **over)
        jobs.append(recipe(CASES[case][0], config))
    run_together(processes, jobs)
    for case in cases:
        one = one_process(case)
        assert losses(root / case) == pytest.approx(losses(one), rel=1e-6, abs=1e-6), case
        ours, expected = weights(root / case), weights(one)
        assert ours.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                ours[name], value, rtol=0, atol=1e-6, msg=lambda m, n=name, c=case: f"{c} {n}: {m}"
            )
        if case == "sigmoid":
            assert expected["model.layers.0.mlp.gate.e_score_correction_bias"].any()


def test_accumulation_changes_nothing(fixtures: StageFixtures, one_process, tmp_path: Path) -> None:
    for case in ("dense", "sigmoid", "dpo"):
        stage = importlib.import_module(f"mengya.stages.{CASES[case][0]}")
        stage.run(make_config(case, fixtures, tmp_path / case, micro=2))
        for name, value in weights(one_process(case)).items():
            torch.testing.assert_close(weights(tmp_path / case)[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_two_processes_equal_one(
    engine: str, fixtures: StageFixtures, one_process, tmp_path: Path
) -> None:
    strategy = {"name": engine}
    check_equal(QUICK, 2, fixtures, one_process, tmp_path, strategy=strategy)
    samples = (tmp_path / "dense/samples.jsonl").read_text().splitlines()
    assert samples == (one_process("dense") / "samples.jsonl").read_text().splitlines()


@pytest.mark.slow  # minutes of a compiler
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_two_compiled_processes_equal_one_that_is_not(
    engine: str, fixtures: StageFixtures, one_process, tmp_path: Path
) -> None:
    strategy = {"name": engine}
    check_equal(
        ["dense", "untied"], 2, fixtures, one_process, tmp_path, strategy=strategy, compile=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_every_case_equals_one_process(
    engine: str, processes: int, fixtures: StageFixtures, one_process, tmp_path: Path
) -> None:
    strategy = {"name": engine, "reshard_after_forward": processes == 2}
    check_equal(list(CASES), processes, fixtures, one_process, tmp_path, strategy=strategy)


@pytest.mark.parametrize(
    "starts",
    [
        pytest.param([(2, 4, "fsdp"), (1, 6, "auto"), (2, 8, "fsdp")], id="fsdp"),
        pytest.param(
            [(2, 2, "fsdp"), (4, 4, "ddp"), (1, 6, "auto"), (2, 8, "fsdp")],
            id="2-4-1-2",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_engine_and_number_of_processes_may_change_at_every_start(
    starts: list[tuple[int, int, str]], fixtures: StageFixtures, one_process, tmp_path: Path
) -> None:
    case, run_dir = "normuon-moe", tmp_path / "run"
    for processes, max_steps, engine in starts:
        config = make_config(
            case, fixtures, run_dir, micro=2, strategy={"name": engine}, max_steps=max_steps, resume=True,
            # Left out, it is what the run started with.
            global_batch_size=8 if max_steps == starts[0][1] else None,
        )  # fmt: skip
        if processes == 1:
            importlib.import_module("mengya.stages.pretrain").run(config)
        else:
            run_together(processes, [recipe("pretrain", config)])
    written = [
        p.name for p in sorted((run_dir / "checkpoints/latest/trainer").glob("opt*.safetensors"))
    ]
    assert written == [
        "optimizer-00001-of-00002.safetensors",
        "optimizer-00002-of-00002.safetensors",
    ]

    def trained(folder: Path) -> list[float]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if "loss" in line]

    assert trained(run_dir) == pytest.approx(trained(one_process(case)), abs=1e-6)
    for name, value in weights(one_process(case)).items():
        torch.testing.assert_close(weights(run_dir)[name], value, rtol=0, atol=1e-6)


ZERO_CASES = ["dense", "sigmoid", "sft-lora", "dpo"]


@pytest.mark.parametrize(
    "stage", [1, *(pytest.param(s, marks=pytest.mark.slow) for s in (0, 2, 3))]
)
def test_zero_equals_one_process(
    stage: int, fixtures: StageFixtures, one_process, tmp_path: Path
) -> None:
    pytest.importorskip("deepspeed")
    cases = ["dense"] if stage == 1 else ZERO_CASES
    if stage == 3:
        cases = [case for case in cases if "lora" not in case]
    check_equal(cases, 2, fixtures, one_process, tmp_path, strategy=zero(stage))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_zero_resumes_from_fsdp_and_fsdp_from_zero(
    stage: int, fixtures: StageFixtures, one_process, tmp_path: Path
) -> None:
    pytest.importorskip("deepspeed")
    run_dir = tmp_path / "run"
    for max_steps, strategy in ((3, {"name": "fsdp"}), (6, zero(stage)), (8, {"name": "fsdp"})):
        config = make_config(
            "dense", fixtures, run_dir, micro=2, strategy=strategy, max_steps=max_steps, resume=True
        )
        run_together(2, [recipe("pretrain", config)])
    for name, value in weights(one_process("dense")).items():
        torch.testing.assert_close(weights(run_dir)[name], value, rtol=0, atol=1e-6)


def wait_for_steps(run_dir: Path, steps: int, process: subprocess.Popen[str]) -> None:
    metrics = run_dir / "metrics.jsonl"
    while process.poll() is None and not (
        metrics.is_file() and metrics.read_text().count("\n") > steps
    ):
        time.sleep(0.01)


def test_sigterm_to_torchrun_saves_and_the_other_world_size_resumes(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    more: dict[str, Any] = {"model": DENSE, "max_steps": 3000}
    more["loop"] = {"log_every": 1, "eval_every": 3000, "save_every": 3000, "sample_every": 3000}
    config = PretrainConfig(**fixtures.settings("text", tmp_path / "run", **more))
    process = start(config, 2)
    wait_for_steps(config.run_dir, 5, process)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    state = tmp_path / "run/checkpoints/latest/trainer/state.json"
    stopped = json.loads(state.read_text())["step"]
    assert 5 < stopped < 3000

    shorter = config.model_copy(update={"max_steps": stopped + 5, "micro_batch_size": 4})
    assert start(shorter, 1).wait(timeout=60) == 0
    assert json.loads(state.read_text())["step"] == stopped + 5


def test_a_rank_that_dies_ends_the_job_and_a_mistake_of_all_is_said_once(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    more: dict[str, Any] = {"model": DENSE, "max_steps": 100_000, "strategy": {"name": "fsdp"}}
    more["loop"] = {"log_every": 1, "eval_every": 10**6, "save_every": 10**6, "sample_every": 10**6}
    config = PretrainConfig(**fixtures.settings("text", tmp_path / "run", **more))
    process = start(config, 2, stderr=subprocess.PIPE)
    wait_for_steps(config.run_dir, 2, process)
    ranks = sorted(psutil.Process(process.pid).children(), key=lambda p: p.environ()["RANK"])
    ranks[1].kill()
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "rank      : 1" in said and "SIGKILL" in said
    assert not any(p.is_running() and p.status() != "zombie" for p in ranks)

    uneven: dict[str, Any] = fixtures.settings("text", tmp_path / "odd", model=DENSE)
    uneven["global_batch_size"] = 2
    odd = PretrainConfig(**uneven)
    process = start(odd, 2, stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(re.findall(r"^error.*global_batch_size 2 must be", said, re.M)) == 1

"""NaN and loss spikes: back to a checkpoint, without the batches at fault, and at most so often."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mengya.errors import UserError
from mengya.training.checkpoint.store import CheckpointStore
from mengya.training.health.watchdog import ENOUGH, Trouble, Watchdog
from mengya.training.run_config import LoopConfig
from mengya.training.state import TrainState
from tests.helpers.planted_trouble import BAD, FLAT, STEPS, Damaging, planted, train
from tests.helpers.tiny_trainer import (
    all_masked,
    make_trainer,
    random_batch,
    tiny_model,
)


def documents(step: int) -> list[dict[str, Any]]:
    return [{"shards": "shards/text", "document": 2 * step + i, "text": "春"} for i in range(2)]


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 10.0])
def test_after_going_back_the_run_equals_one_without_the_batches(
    tmp_path: Path, factor: float, capfd: pytest.CaptureFixture[str]
) -> None:
    went_back, _ = train(tmp_path / "planted", planted(), factor, documents=documents)
    without = [
        all_masked(batch) if step in (40, *BAD) else batch for step, batch in enumerate(planted())
    ]
    clean, _ = train(tmp_path / "clean", without, factor, loop={"max_skipped_in_a_row": 9})
    for (name, a), b in zip(went_back.named_parameters(), clean.parameters(), strict=True):
        assert torch.equal(a, b), name

    checkpoints = CheckpointStore(tmp_path / "planted", 3)
    state = checkpoints.read_state(checkpoints.path(STEPS))
    assert (state.quarantined, state.rewinds, state.skipped) == ([40, *BAD], 1, 4)
    lines = [
        json.loads(line)
        for line in (tmp_path / "planted/quarantine.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == [41, 41, 42, 42, 43, 43, 44, 44]
    assert (lines[2]["document"] == 82 and "in a row" in lines[2]["reason"]) or factor == 10.0
    logged = [
        json.loads(line)["step"]
        for line in (tmp_path / "planted/metrics.jsonl").read_text().splitlines()
    ]
    assert logged == sorted(logged) == list(range(1, STEPS + 1))
    assert "back to step 40 without the batches of steps 41, 42, 43, 44" in capfd.readouterr().err


def test_two_ranks_go_back_together_when_one_meets_the_batches(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    script = root / "tests/helpers/two_ranks.py"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run(
        [*torchrun, str(script), str(tmp_path), "30"],
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root), *sys.path]),
            "OMP_NUM_THREADS": "1",
        },
    )
    states = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert states[0] == states[1]
    assert (states[0]["quarantined"], states[0]["rewinds"]) == ([40, *BAD], 1)
    weights = [load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1)]
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name


def test_one_bad_batch_is_no_reason_to_go_back(tmp_path: Path) -> None:
    train(tmp_path, planted((41,)), 10.0)
    checkpoints = CheckpointStore(tmp_path, 3)
    assert checkpoints.read_state(checkpoints.path(STEPS)).rewinds == 0
    assert not (tmp_path / "quarantine.jsonl").exists()


def test_a_run_goes_back_at_most_so_often_and_then_says_where_to_look(tmp_path: Path) -> None:
    data = planted(tuple(range(36, STEPS)))  # from 36 on nothing is right
    with pytest.raises(
        UserError, match=r"went back 2 times .*loop\.max_rewinds=2.*quarantine\.jsonl.*resume=true"
    ):
        train(tmp_path, data, float("nan"), loop={"max_rewinds": 2}, documents=documents)
    steps = {
        json.loads(line)["step"]
        for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()
    }
    assert steps == set(
        range(34, 46)
    )  # three rows of three, each with the last good step before it


def test_trouble_before_the_first_checkpoint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="no checkpoint is older than this"):
        train(tmp_path / "nan", planted((1, 2, 3)), float("nan"))
    train(tmp_path / "spike", planted(), 10.0, loop={"save_every": STEPS})
    assert "no checkpoint is old enough to go back to" in capfd.readouterr().err


def test_a_resumed_run_decides_as_an_uninterrupted_one(tmp_path: Path) -> None:
    """Stopped inside a row of spikes: what the watchdog remembers is in the state."""
    data = planted()
    loop = LoopConfig(log_every=1, save_every=8, spike_steps=3)
    straight, parts = tiny_model(), tiny_model()
    make_trainer(
        tmp_path / "straight", straight, data, loss=Damaging(10.0), schedule=FLAT, loop=loop
    ).fit()
    first = make_trainer(
        tmp_path / "parts", parts, data, loss=Damaging(10.0), schedule=FLAT, loop=loop, max_steps=43
    )
    first.fit()
    assert first.state.spike_row == [41, 42]
    second = make_trainer(
        tmp_path / "parts", parts, data, loss=Damaging(10.0), schedule=FLAT, loop=loop, resume=True
    )
    second.fit()
    for (name, a), b in zip(straight.named_parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert second.state.quarantined == [40, *BAD]


def test_a_damaged_checkpoint_is_skipped_when_going_back(tmp_path: Path) -> None:
    def spoil(step: int) -> list[dict[str, Any]]:
        (tmp_path / "spoilt/checkpoints/step-000040/model.safetensors").write_bytes(b"")
        return documents(step)

    went_back, _ = train(tmp_path / "spoilt", planted(), 10.0, documents=spoil)
    straight, _ = train(tmp_path / "straight", planted(), 10.0)
    for (name, a), b in zip(went_back.named_parameters(), straight.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert (tmp_path / "spoilt/checkpoints/damaged-step-000040").is_dir()


def judge(losses: list[float]) -> list[str]:
    """What is said of a sequence of losses; 'trouble' last when it comes to that."""
    said: list[str] = []
    watchdog = Watchdog(LoopConfig(), TrainState(), said.append)
    try:
        for step, loss in enumerate(losses):
            watchdog.record(step, 4, 4, torch.tensor(4 * loss), torch.ones(()))
            if (pending := watchdog.pending_loss()) is not None:
                watchdog.resolve(pending)
    except Trouble as trouble:
        said.append(f"trouble {trouble.steps}")
    return said


def test_what_is_a_spike_and_what_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1000, generator=generator)
    falling = [8 * 0.99**step + 2 + 0.1 * float(noise[step]) for step in range(1000)]
    assert judge(falling) == []
    heavy = [0.3 + 0.15 * abs(float(x)) ** 2 for x in noise]  # as DPO's: small, with a long tail
    assert not any("trouble" in said for said in judge(heavy))
    level = [3.0 + 0.05 * float(x) for x in noise[:100]]
    assert judge([*level, 9.0, *level, 9.0, 9.0, *level]) == [
        "loss 9 at step 203 is above 4.5, 2 spikes in a row; at 5 the run goes back to a checkpoint"
    ]
    assert (
        judge([*level, 6.0, 7.0, 8.0, 9.0, 10.0, *level])[-1]
        == "trouble [99, 100, 101, 102, 103, 104]"
    )
    assert judge([9.0, 1.0] * (ENOUGH // 2)) == []  # too few to know


def test_data_without_labels_is_said_to_be_that(tmp_path: Path) -> None:
    data = [random_batch(0), *(all_masked(random_batch(step)) for step in range(1, 9))]
    with pytest.raises(
        UserError, match=r"3 steps in a row .* no labelled token .* check the labels"
    ):
        train(tmp_path, data, 1.0)

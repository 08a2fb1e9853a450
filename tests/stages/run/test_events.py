"""events.jsonl: how a run was started and resumed, and the steps that it skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mengya.config import load_config
from mengya.runtime.jsonl import read_jsonl
from mengya.stages import pretrain
from mengya.stages.pretrain import PretrainConfig
from mengya.training.health.watchdog import Watchdog
from mengya.training.run_config import LoopConfig
from mengya.training.state import TrainState
from mengya.training.telemetry.events import EventLog
from tests.helpers.stage_fixtures import MODEL, StageFixtures

SHORT: dict[str, Any] = {"loop": {"log_every": 1, "save_every": 2}}


def test_start_and_resume_name_the_machine(fixtures: StageFixtures, tmp_path: Path) -> None:
    shape = {**MODEL, "vocab_size": 400}
    settings = fixtures.settings("text", tmp_path / "run", model=shape, **SHORT)
    pretrain.run(load_config(PretrainConfig, None, {**settings, "max_steps": 2}))
    pretrain.run(load_config(PretrainConfig, None, {**settings, "max_steps": 4, "resume": True}))
    start, resume = read_jsonl(tmp_path / "run/events.jsonl")
    assert (start["event"], start["step"]) == ("start", 0)
    assert (resume["event"], resume["step"]) == ("resume", 2)
    for event in (start, resume):
        assert event["hardware"] and event["devices"] == 1 and event["versions"]["torch"]


def test_skipped_steps_and_spikes_are_noted(tmp_path: Path) -> None:
    events = EventLog(tmp_path)
    said: list[str] = []
    watchdog = Watchdog(LoopConfig(), TrainState(), said.append, events.add)
    for step in range(80):
        loss = torch.tensor(90.0 if step == 70 else 3.0 + 0.01 * (step % 3))
        norm = torch.tensor(float("nan") if step == 75 else 1.0)
        watchdog.record(step, 1, 1, loss, norm)
        while (pending := watchdog.pending_loss(drain=True)) is not None:
            watchdog.resolve(pending)
    noted = [(event["event"], event["step"]) for event in read_jsonl(tmp_path / "events.jsonl")]
    assert noted == [("spike", 71), ("skipped", 76)]

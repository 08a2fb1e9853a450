"""Runs on wandb and swanlab are distinct, and a resumed one stays one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from mengya.training.telemetry.metrics import TrackerName, remote_run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("tracker", ["wandb", "swanlab"])
def test_names_tell_models_apart_and_a_resumed_run_keeps_its_id(tracker: TrackerName) -> None:
    first = remote_run(Path("runs/my/sft"), tracker, 0, {})
    other = remote_run(Path("runs/law/sft"), tracker, 0, {})
    assert (first.project, first.name, other.name) == ("mengya", "my/sft", "law/sft")
    assert len(first.id) == 21 and first.id != other.id
    assert remote_run(Path("runs/my/sft"), tracker, 20, {}) == first
    assert remote_run(Path("runs/my/sft"), tracker, 0, {}).id != first.id  # another run
    assert remote_run(Path("sft"), tracker, 0, {}).name == "sft"


def test_two_trackers_have_ids_of_their_own() -> None:
    one = remote_run(Path("run"), "wandb", 0, {})
    two = remote_run(Path("run"), "swanlab", 5, {})
    assert remote_run(Path("run"), "wandb", 9, {}) == one and one.id != two.id


def test_the_variables_of_the_services_come_first() -> None:
    set_ = {"WANDB_PROJECT": "thesis", "WANDB_NAME": "try-3", "WANDB_RUN_ID": "abc"}
    assert tuple(remote_run(Path("run"), "wandb", 0, set_)) == ("thesis", "try-3", "abc")
    assert remote_run(Path("run"), "wandb", 8, {}).id == "abc"


def test_a_broken_file_of_ids_does_not_end_a_run() -> None:
    Path("run").mkdir()
    Path("run/trackers.json").write_text("[1")
    assert len(remote_run(Path("run"), "swanlab", 3, {}).id) == 21

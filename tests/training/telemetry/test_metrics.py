"""Every place that numbers go to: they are there afterwards, step by step."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mengya.runtime.jsonl import read_steps
from mengya.training.telemetry.metrics import MetricsLog, TrackerName


def write_steps(run_dir: Path, tracker: TrackerName, start_step: int = 0) -> None:
    log = MetricsLog(run_dir, start_step, [tracker], {"seed": 0, "data": {"train": ["shards"]}})
    for step in range(start_step + 1, 4):
        log.log(step, {"loss": 1 / step, "lr": 0.1})
    log.close()


def test_tensorboard_holds_what_metrics_jsonl_holds(tmp_path: Path) -> None:
    write_steps(tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    written = [(line["step"], line["loss"]) for line in read_steps(tmp_path / "metrics.jsonl")]
    assert shown == [(step, pytest.approx(loss)) for step, loss in written]
    assert len(written) == 3


def test_steps_that_a_crash_undid_are_written_once(tmp_path: Path) -> None:
    write_steps(tmp_path, "tensorboard")
    write_steps(tmp_path, "tensorboard", start_step=1)
    assert [line["step"] for line in read_steps(tmp_path / "metrics.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("tracker", "mode", "kept"),
    [
        ("wandb", "WANDB_MODE", "wandb/offline-run-*"),
        ("swanlab", "SWANLAB_MODE", "run-*/*.swanlab"),
    ],
)
def test_remote_trackers_keep_a_run_offline(
    tracker: str, mode: str, kept: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed: pip install -e '.[{tracker}]'")
    # A process of its own: these libraries leave threads and hooks behind.
    code = (
        "import sys; from pathlib import Path; "
        "from tests.training.telemetry.test_metrics import write_steps; "
        "write_steps(Path(sys.argv[1]), sys.argv[2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), tracker],
        cwd=Path(__file__).parents[3], env={**os.environ, mode: "offline"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob(kept)), list(tmp_path.rglob("*"))
    assert len(list(read_steps(tmp_path / "metrics.jsonl"))) == 3

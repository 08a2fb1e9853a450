"""Where the numbers of a run go: metrics.jsonl always, TensorBoard, wandb and swanlab as chosen.

Takes flat dictionaries of numbers by step. Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line, read_jsonl
from mengya.runtime.optional import require

TrackerName = Literal["tensorboard", "wandb", "swanlab"]


class Tracker(Protocol):
    """A place for numbers by step."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class MetricsLog:
    """metrics.jsonl and the trackers of one run, on the rank that writes.

    Lines of steps after `start_step` are removed first: a crash or a rewind undid them.
    """

    def __init__(
        self,
        run_dir: Path,
        start_step: int,
        trackers: Sequence[TrackerName],
        run_config: Mapping[str, Any],
    ) -> None:
        self.path = run_dir / "metrics.jsonl"
        run_dir.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")
        self.cut(start_step)
        self._trackers = [_open_tracker(name, run_dir, run_config) for name in trackers]

    def cut(self, step: int) -> None:
        """Remove the lines after `step`; trackers keep theirs, and get those steps again."""
        self._file.close()
        kept = [line for line in read_jsonl(self.path) if line["step"] <= step]
        write_text(self.path, "".join(json_line(values) for values in kept))
        self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._file.write(json_line({"step": step, **values}))
        for tracker in self._trackers:
            tracker.log(step, values)

    def close(self) -> None:
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _open_tracker(name: TrackerName, run_dir: Path, run_config: Mapping[str, Any]) -> Tracker:
    match name:
        case "tensorboard":
            return _TensorBoard(run_dir)
        case "wandb":
            wandb = require("wandb", "wandb")
            return _RemoteRun(
                wandb.init(
                    project="mengya", name=run_dir.name, dir=run_dir, config=dict(run_config)
                )
            )
        case "swanlab":
            swanlab = require("swanlab", "swanlab")
            run = swanlab.init(
                project="mengya",
                experiment_name=run_dir.name,
                logdir=str(run_dir),
                config=dict(run_config),
            )
            return _RemoteRun(run)


class _TensorBoard:
    def __init__(self, run_dir: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_dir / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _RemoteRun:
    """A run of wandb or swanlab, whose objects take the same calls."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()

"""Where the numbers of a run go: metrics.jsonl always, TensorBoard, wandb and swanlab as chosen.

Takes flat dictionaries of numbers by step. Knows nothing of training.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line, read_metrics
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
        self._trackers = [_open_tracker(name, run_dir, start_step, run_config) for name in trackers]

    def cut(self, step: int) -> None:
        """Remove the lines after `step`; trackers keep theirs, and get those steps again."""
        self._file.close()
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
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


def _open_tracker(
    name: TrackerName, run_dir: Path, start_step: int, run_config: Mapping[str, Any]
) -> Tracker:
    match name:
        case "tensorboard":
            return _TensorBoard(run_dir)
        case "wandb":
            wandb = require("wandb", "wandb")
            run = remote_run(run_dir, name, start_step, os.environ)
            return _RemoteRun(
                wandb.init(
                    project=run.project, name=run.name, id=run.id, resume="allow",
                    dir=run_dir, config=dict(run_config),
                )
            )  # fmt: skip
        case "swanlab":
            swanlab = require("swanlab", "swanlab")
            run = remote_run(run_dir, name, start_step, os.environ)
            return _RemoteRun(
                swanlab.init(
                    project=run.project, experiment_name=run.name, id=run.id, resume="allow",
                    logdir=str(run_dir), config=dict(run_config),
                )
            )  # fmt: skip


class RemoteRun(NamedTuple):
    """How a service of runs on the web knows a run."""

    project: str
    name: str
    id: str


IDS = "trackers.json"  # in run_dir: the id of the run by tracker
# The variables of the services' own documentation, which come before our choice.
_VARIABLES = {
    "wandb": ("WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_ID"),
    "swanlab": ("SWANLAB_PROJ_NAME", "SWANLAB_EXP_NAME", "SWANLAB_RUN_ID"),
}


def remote_run(
    run_dir: Path, tracker: TrackerName, start_step: int, environment: Mapping[str, str]
) -> RemoteRun:
    """Project mengya, the path of run_dir as the name (my/sft), and an id that a resumed run keeps.

    A run from its start, step 0, gets a new id. The variables of the services have precedence.
    """
    project, name, run_id = (environment.get(key) for key in _VARIABLES[tracker])
    path = run_dir / IDS
    ids: dict[str, str] = {}
    if start_step > 0:
        with suppress(OSError, ValueError, TypeError):
            ids = dict(json.loads(path.read_text(encoding="utf-8")))
    run_id = run_id or ids.get(tracker) or uuid.uuid4().hex[:21]  # the length that swanlab wants
    write_text(path, json.dumps({**ids, tracker: run_id}) + "\n")
    return RemoteRun(project or "mengya", name or _name_of(run_dir), run_id)


def _name_of(run_dir: Path) -> str:
    """runs/my/sft -> my/sft: the last folder alone is the same for every model."""
    folder = run_dir.resolve()
    with suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    parts = [part for part in folder.parts if part != folder.anchor]
    if len(parts) > 1 and parts[0] == "runs":
        parts = parts[1:]
    return "/".join(parts[-3:])


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

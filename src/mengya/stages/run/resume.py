"""The folder of a run: who may write it, and what a run must have in common with the one that it resumes.

Takes the settings and what the folder has of earlier ones (config.yaml, checkpoints); refuses, or says
how many rows a step has. Weights and state are restored elsewhere (training/checkpoint/manager.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

import yaml

from mengya.config import load_config
from mengya.errors import UserError
from mengya.runtime.output_folder import FolderKind, open_run_folder
from mengya.training.checkpoint.store import CheckpointStore
from mengya.training.run_config import RunConfig
from mengya.training.telemetry.metrics import IDS
from mengya.training.telemetry.progress import LOG

# A run resumed with another of these would not be the run that was stopped.
_FIXED = (
    "seed",
    "data",
    "global_batch_size",
    "batch_ramp",
    "neftune_alpha",
    "save_dtype",
    "shifted_sparse_ratio",
)


# What a run writes; the folders of trackers are theirs to name.
_NAMES = (
    "config.yaml",
    "metrics.jsonl",
    "samples.jsonl",
    "quarantine.jsonl",
    "report.html",
    LOG,
    IDS,
    "checkpoints",
    "tensorboard",
)
C = TypeVar("C", bound=RunConfig)


def in_run_folder(run: Callable[[C], bool]) -> Callable[[C], bool]:
    """Let a verb run while it holds the lock of its run_dir, on rank 0.

    Raises (the function made):
        UserError: run_dir holds something else, or another process is writing it.
    """
    kind = FolderKind(run.__module__.rpartition(".")[2], _NAMES, unmarked=_is_run)

    @wraps(run)
    def locked(config: C) -> bool:
        if int(os.environ.get("RANK", "0")) > 0:
            return run(config)
        sources = [source.path for source in (*config.data.train, *config.data.validation)]
        with open_run_folder(config.run_dir, kind, sources=sources):
            return run(config)

    return locked


def _is_run(folder: Path) -> bool:
    """Whether an earlier version wrote the folder, which set no marker: config.yaml is that of a run."""
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(values, dict) and {"run_dir", "resume", "loop", "schedule"} <= values.keys()


def check_run(config: RunConfig) -> None:
    """Refuse a run folder of another run, or of one that is not to be resumed."""
    latest = CheckpointStore(config.run_dir, config.loop.keep_last).latest()
    if latest is None:
        return
    if not config.resume:
        raise UserError(
            f"{config.run_dir} already holds a run with checkpoints up to {latest.name}; "
            "write resume=true to resume it, or choose another run_dir"
        )
    before = load_config(type(config), config.run_dir / "config.yaml").model_dump(mode="json")
    now = config.model_dump(mode="json")
    # Not set, it is what the run started with (`full_batch`), for any number of processes.
    now["global_batch_size"] = now["global_batch_size"] or before["global_batch_size"]
    for values in (before, now):
        del values["data"]["verify"]  # whether to check the data, not which
    changed = [
        f"{name}: was {before[name]}, now {now[name]}"
        for name in (*_FIXED, "model", "init_from", "stretch", "lora")
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise UserError(
            f"{config.run_dir} cannot be resumed with other settings:\n  - "
            + "\n  - ".join(changed)
            + "\nrestore them, or start a new run_dir with init_from"
        )


def new_run(config: RunConfig, checkpoint: Path) -> str:
    """What to type to start a new run from the weights of a checkpoint of this run."""
    values = config.model_dump(mode="json")
    if values.get("lora") is not None:
        return f"mengya merge {checkpoint} out=FOLDER, then init_from=FOLDER run_dir=ANOTHER_FOLDER"
    no_more = (f"{name}=null" for name in ("model", "stretch") if values.get(name) is not None)
    return " ".join([f"init_from={checkpoint}", *no_more, "run_dir=ANOTHER_FOLDER"])


def full_batch(config: RunConfig, world_size: int) -> int:
    """Rows per step; where it is not set, a resumed run keeps what it started with."""
    if config.global_batch_size is not None:
        return config.global_batch_size
    earlier = config.run_dir / "config.yaml"
    if config.resume and earlier.is_file():
        before = load_config(type(config), earlier).global_batch_size
        if before is not None:
            return before
    return config.micro_batch_size * world_size

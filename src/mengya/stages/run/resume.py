"""The folder of a run: who may write it, and what a run must have in common with the one that it resumes.

Takes the settings and what the folder has of earlier ones (config.yaml, checkpoints); refuses, or says
how many rows a step has. Weights and state are restored elsewhere (training/checkpoint/manager.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import yaml
from rich.console import Console

from mengya.config import load_config
from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.mixing.plan import MixturePlan
from mengya.errors import UserError, shown
from mengya.runtime.checkpoint_names import step_of
from mengya.runtime.output_folder import FolderKind, open_run_folder
from mengya.runtime.training_data import TRAINING_DATA
from mengya.stages.run.inputs import FILE as INPUTS
from mengya.stages.run.inputs import (
    load_inputs,
    moved,
    other_content,
    read_inputs,
    resolved,
    save_inputs,
)
from mengya.training.checkpoint.store import CheckpointStore
from mengya.training.run_config import RunConfig
from mengya.training.telemetry.events import EVENTS
from mengya.training.telemetry.metrics import IDS
from mengya.training.telemetry.progress import LOG

# A run resumed with another of these would not be the run that was stopped: it would minimize another
# loss, on other data, from other weights. The optimizer is compared with its state (optim/layout.py).
_FIXED = (
    "seed", "data", "global_batch_size", "batch_ramp", "neftune_alpha", "save_dtype",
    "shifted_sparse_ratio", "model", "init_from", "stretch", "quantization", "lora", "z_loss", "beta",
    "label_smoothing", "sft_weight",
)  # fmt: skip
# What may change without a line: how the run is started, not what it computes.
_UNSAID = ("run_dir", "resume", "data.verify")


# What a run writes; the folders of trackers are theirs to name.
_NAMES = (
    "config.yaml",
    INPUTS,
    TRAINING_DATA,
    "metrics.jsonl",
    EVENTS,
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
        if not _is_first_rank():
            return run(config)
        sources = [source.path for source in (*config.data.train, *config.data.validation)]
        with open_run_folder(config.run_dir, kind, sources=sources):
            try:
                return run(config)
            finally:
                if not (config.run_dir / "config.yaml").exists():  # it never began: leave nothing
                    (config.run_dir / INPUTS).unlink(missing_ok=True)

    return locked


def _is_run(folder: Path) -> bool:
    """Whether an earlier version wrote the folder, which set no marker: config.yaml is that of a run."""
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(values, dict) and {"run_dir", "resume", "loop", "schedule"} <= values.keys()


def check_run(config: C) -> C:
    """The settings with their input paths resolved; inputs.json pins what they name.

    Prints, when a run is resumed, what else has changed, in one line.

    Raises:
        UserError: a run folder of another run, or of one that is not to be resumed.
    """
    latest = CheckpointStore(config.run_dir, config.loop.keep_last).latest()
    if latest is not None and not config.resume:
        raise UserError(
            f"{config.run_dir} already holds a run with checkpoints up to {latest.name}; "
            "write resume=true to resume it, or choose another run_dir"
        )
    if latest is not None and (gone := list(moved(config))):
        raise UserError("\n".join(gone))
    config = resolved(config)
    inputs = read_inputs(config)
    pinned = None if latest is None else load_inputs(config.run_dir)
    refused = [] if pinned is None else list(other_content(pinned, inputs))
    allowed: list[str] = []
    restore: list[str] = []
    if latest is not None:
        before = load_config(type(config), config.run_dir / "config.yaml", ["resume=true"])
        for key, was, now in _changes(_compared(before), _compared(config)):
            line = f"{key}: was {_value(was)}, now {_value(now)}"
            if key in _UNSAID or (key == "global_batch_size" and now is None):
                continue  # not set, it is what the run started with (`full_batch`)
            if key.partition(".")[0] not in _FIXED or (pinned is not None and _is_path(key)):
                allowed.append(line)  # of a path: the content was compared
            else:
                refused.append(line)
                if not any(part.isdecimal() for part in key.split(".")):
                    restore.append(f"{key}={json.dumps(was, ensure_ascii=False)}")
    if refused:
        typed = f" ({' '.join(restore)})" if restore else ""
        raise UserError(
            f"{config.run_dir} cannot be resumed with other settings:\n  - "
            + "\n  - ".join(refused)
            + f"\nrestore them{typed}, or start a new run_dir with init_from"
        )
    if _is_first_rank():
        if pinned is None:
            config.run_dir.mkdir(parents=True, exist_ok=True)
            save_inputs(inputs, config.run_dir)
        if allowed:
            say = f"{config.run_dir} is resumed with other settings: {'; '.join(allowed)}"
            Console(stderr=True).print(say, highlight=False, markup=False, soft_wrap=True)
    return config


def check_rows(
    config: RunConfig, plan: Callable[[RunConfig], MixturePlan], batch_size: BatchSize
) -> None:
    """Refuse a resumed run whose new length gives steps that were trained other rows.

    The length may change where no phase that has begun, and no cap, depends on it.

    Args:
        plan: the mixture of this data at the length of other settings.
    """
    latest = CheckpointStore(config.run_dir, config.loop.keep_last).latest()
    earlier = config.run_dir / "config.yaml"
    if latest is None or not earlier.is_file():
        return
    before, step = load_config(type(config), earlier, ["resume=true"]), step_of(latest)
    if plan(before).same_until(plan(config), batch_size.first_row(step)):
        return
    length = ("max_steps", "epochs", "schedule")
    changes = [
        (key, was, now)
        for key, was, now in _changes(_compared(before), _compared(config))
        if key.partition(".")[0] in length
    ]
    said = "; ".join(f"{key}: was {_value(was)}, now {_value(now)}" for key, was, now in changes)
    typed = " ".join(f"{key}={json.dumps(was, ensure_ascii=False)}" for key, was, _ in changes)
    raise UserError(
        f"{config.run_dir} cannot be resumed with another length: {said}: data.phases or max_epochs would "
        f"have given the {step:,} steps that it trained other rows. Restore it ({typed}), or start a new "
        f"run: {new_run(config, latest)}"
    )


def _compared(config: RunConfig) -> dict[str, Any]:
    return resolved(config).model_dump(mode="json")


def _changes(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, earlier value, value now) of every single value that differs."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = ({str(i): v for i, v in enumerate(values)} for values in (before, now))
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*before, *now]):
            dotted = f"{key}.{name}" if key else name
            yield from _changes(before.get(name), now.get(name), dotted)
    elif before != now:
        yield key, before, now


def _value(value: Any) -> str:
    return "null" if value is None else shown(value)


def _is_path(key: str) -> bool:
    return key in ("init_from", "tokenizer") or (key.startswith("data.") and key.endswith(".path"))


def _is_first_rank() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def new_run(config: RunConfig, checkpoint: Path) -> str:
    """What to type to start a new run from the weights of a checkpoint of this run."""
    values = config.model_dump(mode="json")
    if values.get("lora") is not None:
        return f"mengya merge {checkpoint} out=FOLDER, then init_from=FOLDER run_dir=ANOTHER_FOLDER"
    no_more = (
        f"{name}=null"
        for name in ("model", "stretch", "quantization")
        if values.get(name) is not None
    )
    return " ".join([f"init_from={checkpoint}", *no_more, "run_dir=ANOTHER_FOLDER"])


def full_batch(config: RunConfig, world_size: int) -> int:
    """Rows per step; where it is not set, a resumed run keeps what it started with."""
    if config.global_batch_size is not None:
        return config.global_batch_size
    earlier = config.run_dir / "config.yaml"
    if config.resume and earlier.is_file():
        before = load_config(type(config), earlier, ["resume=true"]).global_batch_size
        if before is not None:
            return before
    return config.micro_batch_size * world_size

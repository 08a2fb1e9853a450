"""What a run must have in common with the run of the same folder that it goes on with.

Takes the settings and what the folder has of earlier ones (config.yaml, checkpoints); refuses, or says
how many rows a step has. Weights and state are restored elsewhere (training/checkpoint/manager.py).
"""

from __future__ import annotations

from pathlib import Path

from mengya.config import load_config
from mengya.errors import UserError
from mengya.training.checkpoint.store import CheckpointStore
from mengya.training.run_config import RunConfig

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

"""DeepSpeed's JSON with its "auto" values filled from our configuration, and what it may not say.

Takes a file and the run's values; gives the dictionary for `deepspeed.initialize`. Does not import it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mengya.errors import UserError


@dataclass(frozen=True)
class AutoValues:
    """What "auto" stands for. global_batch_size None: one micro-batch a process."""

    micro_batch_size: int = 1
    global_batch_size: int | None = None
    max_grad_norm: float = 1.0


_OURS = {"optimizer": "optimizer", "scheduler": "schedule", "amp": "precision", "fp16": "precision"}


def read_deepspeed_config(
    path: Path, auto: AutoValues, world_size: int, dtype: torch.dtype | None
) -> dict[str, Any]:
    """The settings of a JSON file.

    Raises:
        UserError: the file is no JSON, says something else than the run's configuration, or asks for
            what is not supported.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        zero = values.setdefault("zero_optimization", {})
        stage = zero.setdefault("stage", 0)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"strategy.deepspeed_config={path} cannot be read as JSON: {error}"
        ) from error
    for name, ours in _OURS.items():
        if values.get(name, {}) not in ({}, {"enabled": False}):
            raise UserError(f"{path}: leave {name!r} out; it is {ours} in the recipe of the run")
    if found := [name for name in zero if name.startswith("offload_")]:
        raise UserError(
            f"{path}: {found[0]} is not supported; leave it out, or shard over more processes"
        )
    if stage not in (0, 1, 2, 3):
        raise UserError(f"{path}: zero_optimization.stage is {stage!r}; write 0, 1, 2 or 3")
    if stage == 0 and dtype is not None:
        raise UserError(
            f"{path}: ZeRO 0 runs in fp32 here; write precision=fp32, or take zero1.json for bf16"
        )
    batch = auto.global_batch_size or auto.micro_batch_size * world_size
    known = {
        "train_micro_batch_size_per_gpu": auto.micro_batch_size,
        "gradient_accumulation_steps": max(1, batch // (auto.micro_batch_size * world_size)),
        "train_batch_size": batch,
        "gradient_clipping": auto.max_grad_norm,
    }
    for name, value in known.items():
        if values.get(name, "auto") not in ("auto", value):
            raise UserError(
                f'{path}: {name} is {values[name]}, the run has {value}; write "auto" for it'
            )
        values[name] = value
    bf16 = values.setdefault("bf16", {})
    if bf16.get("enabled", "auto") not in ("auto", dtype == torch.bfloat16):
        raise UserError(
            f"{path}: bf16.enabled is {bf16['enabled']}, which is not the precision of the run; write "
            '"auto" for it'
        )
    # Steps with non-finite gradients must be skipped in bf16 too.
    values["bf16"] = {"enabled": dtype == torch.bfloat16, "check_grad_overflow": True}
    if stage == 0:
        values["gradient_clipping"] = 0.0  # ours, as the norm must be known before the update
    return values | {"zero_allow_untested_optimizer": True, "steps_per_print": 10**9}

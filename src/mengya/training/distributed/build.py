"""How a step runs over devices: one file per engine, one interface, that of `SingleDevice`.

The loop asks accumulate, backward, step, sum; it has no `if distributed`. Processes are started by
torchrun, `accelerate launch`, `deepspeed` or Slurm: all of them set RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR and MASTER_PORT, and nothing else is read.
"""

from __future__ import annotations

import os

import torch

from mengya.training.distributed.config import StrategyConfig
from mengya.training.distributed.ddp import DDP
from mengya.training.distributed.deepspeed_config import AutoValues
from mengya.training.distributed.fsdp import FSDP
from mengya.training.distributed.single import SingleDevice

__all__ = ["DDP", "FSDP", "AutoValues", "SingleDevice", "StrategyConfig", "pick_strategy"]


def pick_strategy(
    config: StrategyConfig,
    device: torch.device,
    autocast_dtype: torch.dtype | None,
    auto: AutoValues | None = None,
) -> SingleDevice:
    """The engine that the configuration names; auto is DDP when several processes were started.

    Args:
        auto: what "auto" in DeepSpeed's file stands for.

    Raises:
        UserError: an engine that cannot run with this precision, or is not installed.
    """
    name = config.name
    if name == "auto":
        name = "ddp" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else "single"
    match name:
        case "fsdp":
            return FSDP(device, autocast_dtype, config)
        case "deepspeed":
            from mengya.training.distributed.deepspeed import DeepSpeed

            return DeepSpeed(device, autocast_dtype, config, auto or AutoValues())
        case "ddp":
            return DDP(device, autocast_dtype)
        case _:
            return SingleDevice(device, autocast_dtype)

"""The strategies by their names in `strategy.name`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from mengya.training.distributed.ddp import DDP
from mengya.training.distributed.fsdp import FSDP
from mengya.training.distributed.single import SingleDevice
from mengya.training.distributed.strategy import Strategy
from mengya.training.execution import Execution
from mengya.training.run_config import RunConfig


def build_strategy(config: RunConfig, execution: Execution) -> Strategy:
    """The strategy that the settings name; auto is DDP when a launcher started several processes.

    Raises:
        UserError: the engine does not compute in this precision, or is not installed.
    """
    name = config.strategy.name
    if name == "auto":
        name = "ddp" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else "single"
    return _STRATEGIES[name](config, execution)


def _single(config: RunConfig, execution: Execution) -> Strategy:
    return SingleDevice(execution)


def _ddp(config: RunConfig, execution: Execution) -> Strategy:
    return DDP(execution)


def _fsdp(config: RunConfig, execution: Execution) -> Strategy:
    return FSDP(execution, config.strategy)


def _deepspeed(config: RunConfig, execution: Execution) -> Strategy:
    from mengya.training.distributed.deepspeed import DeepSpeed
    from mengya.training.distributed.deepspeed_config import AutoValues

    auto = AutoValues(
        config.micro_batch_size, config.global_batch_size, config.optimizer.max_grad_norm
    )
    return DeepSpeed(execution, config.strategy, auto)


_STRATEGIES: Mapping[str, Callable[[RunConfig, Execution], Strategy]] = {
    "single": _single,
    "ddp": _ddp,
    "fsdp": _fsdp,
    "deepspeed": _deepspeed,
}

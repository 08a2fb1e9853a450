"""How a run computes: device, precision and compiler, resolved once from its settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mengya.runtime.device import init_device, pick_autocast_dtype
from mengya.training.run_config import RunConfig


@dataclass(frozen=True)
class Execution:
    """What strategy, losses, layers and planning need to know of the settings.

    Attributes:
        device: of this process.
        autocast_dtype: dtype of matrix products; None: fp32 throughout.
        fp8: feed-forward layers compute in fp8 while training; all else as autocast_dtype says.
        compile: whether the model (and a loss that takes logits) goes through torch.compile.
    """

    device: torch.device
    autocast_dtype: torch.dtype | None = None
    fp8: bool = False
    compile: bool = False


def resolve_execution(config: RunConfig) -> Execution:
    """The execution of this process; on CUDA its device becomes the current one.

    Raises:
        UserError: the device is not available, or does not compute in the precision asked for.
    """
    device = init_device(config.device, config.threads)
    return execution_on(device, pick_autocast_dtype(config.precision, device), config)


def execution_on(
    device: torch.device, autocast_dtype: torch.dtype | None, config: RunConfig
) -> Execution:
    """The execution on a device that may be elsewhere (`mengya plan`); compile is CUDA's default."""
    compiled = device.type == "cuda" if config.compile is None else config.compile
    return Execution(device, autocast_dtype, config.precision == "fp8", compiled)

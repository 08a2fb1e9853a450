"""The mean power of the devices between two lines of the log, from the energy counters of NVIDIA's NVML.

Takes a device; gives watts. One read of a counter a line: nothing runs while steps do. Where the power is not
known (another device, no `pynvml`, an old driver, part of a GPU), nothing is said and nothing fails.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor


class PowerMeter:
    """The power of this process's device.

    Args:
        joules: what the device has used since some point in the past; None: not known.
        clock: seconds since some point in the past.
    """

    def __init__(
        self,
        joules: Callable[[], float | None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._joules, self._clock = joules, clock
        self._last, self._at = joules(), clock()

    def values(self, all_reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """power_watts: of all devices together, the mean since the last call; {} where one is not known.

        Args:
            all_reduce: sums a tensor on the host over all ranks, which call this together.
        """
        before, since = self._last, self._at
        self._last, self._at = self._joules(), self._clock()
        watts = None
        if before is not None and self._last is not None and self._at > since:
            watts = (self._last - before) / (self._at - since)
        own = torch.tensor([watts or 0.0, watts is None], dtype=torch.float64)
        total, unknown = all_reduce(own).tolist()
        return {} if unknown else {"power_watts": total}


def energy_counter(device: torch.device) -> Callable[[], float | None]:
    """The joules that a GPU has used since its driver was loaded."""
    nvml = _nvml() if device.type == "cuda" else None
    if nvml is None:
        return lambda: None
    try:
        nvml.nvmlInit()
        # By its UUID: NVML counts devices that CUDA_VISIBLE_DEVICES hides.
        handle = nvml.nvmlDeviceGetHandleByUUID(
            f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        )
    except nvml.NVMLError:
        return lambda: None

    def joules() -> float | None:
        try:
            return nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000  # of millijoules
        except nvml.NVMLError:
            return None

    return joules


def _nvml() -> ModuleType | None:
    try:
        return importlib.import_module("pynvml")
    except ImportError:  # the extra `power` is not installed
        return None

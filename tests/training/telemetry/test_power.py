"""The mean power between two lines, from counters that are planted; a machine without NVIDIA says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

from mengya.training.telemetry.power import PowerMeter, energy_counter


def alone(values: Tensor) -> Tensor:
    return values


def meter(joules: Iterable[float | None], seconds: Iterable[float]) -> PowerMeter:
    counter, clock = iter(joules), iter(seconds)
    return PowerMeter(lambda: next(counter), lambda: next(clock))


def test_joules_over_seconds_since_the_last_line() -> None:
    power = meter([1000.0, 4000.0, 4500.0], [0.0, 10.0, 12.0])
    assert power.values(alone) == {"power_watts": 300.0}
    assert power.values(alone) == {"power_watts": 250.0}


def test_the_devices_of_all_ranks_add_up_and_one_that_is_unknown_hides_all() -> None:
    def with_another(watts: float, unknown: float) -> Callable[[Tensor], Tensor]:
        return lambda values: values + torch.tensor([watts, unknown], dtype=torch.float64)

    assert meter([0.0, 300.0], [0.0, 1.0]).values(with_another(200.0, 0.0)) == {"power_watts": 500}
    assert meter([0.0, 300.0], [0.0, 1.0]).values(with_another(0.0, 1.0)) == {}


def test_a_counter_that_fails_is_no_error_and_comes_back() -> None:
    power = meter([0.0, None, 100.0, 150.0], [0.0, 1.0, 2.0, 3.0])
    assert [power.values(alone) for _ in range(3)] == [{}, {}, {"power_watts": 50.0}]


def test_a_cpu_has_no_counter() -> None:
    assert energy_counter(torch.device("cpu"))() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a counter")
def test_nvml_without_a_driver_is_no_error() -> None:
    pytest.importorskip("pynvml")
    assert energy_counter(torch.device("cuda"))() is None

"""The schedule against PyTorch's and transformers' own, and at its ends."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from transformers import (
    get_cosine_with_min_lr_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from mengya.training.schedule import ScheduleConfig, decay_start, lr_factor


def theirs(make, steps: int, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_after_warmup_equals_transformers(name: str) -> None:
    # Theirs starts the warm-up at zero, which wastes a step, and reaches the floor one step after the
    # last; ours starts at 1/warmup and ends on the floor. So the part after the warm-up is compared.
    warmup, steps = 10, 101
    floor = 0.1 if name == "cosine" else 0.0
    ours = ScheduleConfig(name=name, warmup_steps=warmup, min_lr_ratio=floor)  # type: ignore[arg-type]
    if name == "cosine":
        expected = theirs(
            get_cosine_with_min_lr_schedule_with_warmup, steps, num_warmup_steps=warmup,
            num_training_steps=steps - 1, min_lr=floor,
        )  # fmt: skip
    else:
        expected = theirs(
            get_linear_schedule_with_warmup,
            steps,
            num_warmup_steps=warmup,
            num_training_steps=steps - 1,
        )
    rates = [lr_factor(step, steps, ours) for step in range(steps)]
    assert rates[warmup:] == pytest.approx(expected[warmup:], abs=1e-9)
    assert rates[0] == 1 / warmup and rates[warmup - 1] == 1.0


def test_wsd_is_flat_then_falls_to_the_floor() -> None:
    schedule = ScheduleConfig(name="wsd", warmup_steps=5, decay_ratio=0.2, min_lr_ratio=0.0)
    rates = [lr_factor(step, 100, schedule) for step in range(100)]
    assert rates[5:79] == [1.0] * 74
    assert rates[-1] == 0.0 and all(a > b for a, b in pairwise(rates[80:]))


def test_two_warmups_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="keep one of them"):
        ScheduleConfig(warmup_steps=3, warmup_ratio=0.1)


@pytest.mark.parametrize(
    ("steps", "ratio", "warmup"), [(100, 0.2, 5), (7, 0.5, 0), (450, 0.13, 40)]
)
def test_decay_starts_at_the_first_lower_rate(steps: int, ratio: float, warmup: int) -> None:
    wsd = ScheduleConfig(name="wsd", decay_ratio=ratio, warmup_steps=warmup)
    start = decay_start(steps, wsd)
    assert start is not None
    rates = [lr_factor(step, steps, wsd) for step in range(steps)]
    assert set(rates[warmup:start]) == {1.0} and max(rates[start:]) < 1
    assert decay_start(steps, ScheduleConfig()) is None

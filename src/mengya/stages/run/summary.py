"""The line that a run begins with."""

from __future__ import annotations

from torch import nn

from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.mixture import Mixture
from mengya.training.checkpoint.store import TrainState
from mengya.training.run_config import RunConfig


def model_size(model: nn.Module) -> tuple[int, int]:
    """Parameters, and those of them that are trained; before an engine divides them."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def run_summary(
    name: str,
    config: RunConfig,
    size: tuple[int, int],
    rows: Mixture,
    batch_size: BatchSize,
    max_steps: int,
    state: TrainState,
) -> str:
    """How large the model is, how long the run, and where it starts.

    Args:
        size: of `model_size`.
    """
    parameters, trainable = size
    count, length = batch_size.first_row(max_steps), config.data.sequence_length
    grows = "" if batch_size.ramp is None else f"{batch_size.at(0)} to "
    text = (
        f"{name}: {parameters / 1e6:.2f}M parameters ({trainable / parameters:.1%} trained), "
        f"{max_steps} steps of {grows}{batch_size.at(max_steps)} x {length} = {count * length:,} tokens, "
        f"{count / len(rows):.2f} epochs"
    )
    if state.step:
        text += f"; resuming at step {state.step}"
    return text

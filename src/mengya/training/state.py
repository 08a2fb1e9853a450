"""What a run remembers besides tensors, saved as trainer/state.json."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TrainState:
    """Everything else is a function of `step`. Field names are keys of state.json: never rename one.

    Attributes, by who writes them:
        step, tokens: the loop. Optimizer steps done, skipped ones included: the position in data and
            schedule; tokens trained on so far, padding not counted.
        best_loss, best_step: the loop. The lowest validation loss of a checkpoint and where it was.
        skipped: the loop and the watchdog. Steps not applied (no labels, or non-finite gradients).
        losses, last_good, skipped_row, spike_row: the watchdog. What it knows of the steps before.
        grad_scaler: the checkpoint manager. State of the fp16 loss scaler; empty without one.
        quarantined, rewinds: the checkpoint manager. Steps whose batches are skipped; how often the run
            went back.
    """

    step: int = 0
    tokens: int = 0
    skipped: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    grad_scaler: dict[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    last_good: int | None = None
    skipped_row: list[int] = field(default_factory=list)
    spike_row: list[int] = field(default_factory=list)
    quarantined: list[int] = field(default_factory=list)
    rewinds: int = 0

"""The settings of the training loop. Values and their rules only."""

from __future__ import annotations

from pydantic import Field

from mengya.config import Config


class LoopConfig(Config):
    log_every: int = Field(default=10, ge=1)
    """Steps between lines of metrics."""
    eval_every: int = Field(default=200, ge=1)
    """Steps between validations; the last step always validates."""
    save_every: int = Field(default=200, ge=1)
    """Steps between checkpoints; the last step always saves."""
    sample_every: int = Field(default=200, ge=1)
    """Steps between samples from the fixed prompts; the last step always samples."""
    keep_last: int = Field(default=3, ge=1)
    """Checkpoints kept besides the best one."""
    max_skipped_in_a_row: int = Field(default=20, ge=1)
    """Go back to a checkpoint after so many steps in a row that could not be applied (gradients not
    finite): fp16 alone skips some ten at the start."""
    spike_threshold: float | None = Field(default=10.0, gt=0)
    """A loss so many robust standard deviations above the median of the last 64 steps, and at least
    half as much again, is a spike; null turns this off."""
    spike_steps: int = Field(default=5, ge=1)
    """Go back to a checkpoint after so many spikes in a row; a single one is left to clipping."""
    max_rewinds: int = Field(default=3, ge=0)
    """Times that a run may go back, leaving out the batches at fault, before it stops with a report."""

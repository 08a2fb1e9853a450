"""How long a run is, from its settings and the rows of its data."""

from __future__ import annotations

from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.mixing.plan import RunLength
from mengya.training.run_config import RunConfig
from mengya.training.schedule import decay_start


def run_length(config: RunConfig, rows: int, batch_rows: int) -> RunLength:
    """Steps and rows of a run.

    Args:
        rows: of one epoch of all sources. batch_rows: of a full step over all devices.
    """
    batch = BatchSize(batch_rows, config.batch_ramp)
    steps = config.max_steps or batch.steps_for((config.epochs or 0) * rows)
    return RunLength(steps, batch, decay_start(steps, config.schedule))

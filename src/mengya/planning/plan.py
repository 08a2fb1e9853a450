"""The estimate of a run before it starts, in numbers: estimate.py makes it, render.py shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mengya.models.causal_lm import CausalLM
from mengya.planning.activations import MemorySettings
from mengya.planning.flops import Flops
from mengya.planning.hardware import Device, Expected
from mengya.planning.inputs import Data, Hardware, Verb
from mengya.planning.memory import Memory
from mengya.planning.sizes import ParameterCounts
from mengya.training.run_config import RunConfig


@dataclass(frozen=True)
class Plan:
    """One run; tokens are real ones, padding not counted.

    Attributes:
        steps, tokens, epochs, seconds, cost: of the run; None where the length of the data is
            not known (tokens_per_second and what belongs to a step are known all the same).
        batch_rows: rows of a step over all devices.
        trained: parameters with a gradient.
        flops: of one position; `recomputed` is what gradient checkpointing adds.
        expected, seconds_per_step, tokens_per_second: None without a peak.
    """

    recipe: Path | None
    verb: Verb
    config: RunConfig
    model: CausalLM
    counts: ParameterCounts
    trained: int
    data: Data
    batch_rows: int
    steps: int | None
    tokens: float | None
    epochs: float | None
    flops: Flops
    recomputed: float
    device: Device
    hardware: Hardware
    settings: MemorySettings
    memory: Memory
    expected: Expected | None
    seconds_per_step: float | None
    tokens_per_second: float | None
    seconds: float | None
    cost: float | None

"""`mengya plan`: what a run will need before it is started - parameters, FLOPs, memory, hours, cost.

Nothing is trained and no weight gets memory: the shape, the recipe and the shards say it all. The FLOPs
are those that training logs its MFU by (models/flops.py), memory is counted in training/memory.py, and
how much of a device's peak is reached was measured (training/hardware.yaml).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mengya.data.batch_size import BatchSize
from mengya.models.causal_lm import CausalLM
from mengya.models.flops import Flops, muon_flops, recomputed_flops, training_flops
from mengya.models.sizes import ParameterCounts, parameter_counts
from mengya.stages.plan_inputs import (
    Data,
    Hardware,
    Verb,
    open_data,
    open_device,
    open_model,
    read_run,
)
from mengya.stages.run_config import RunConfig
from mengya.training.hardware import (
    Device,
    Expected,
    ModelKind,
    RunKind,
    expected_mfu,
)
from mengya.training.memory import Memory, training_memory
from mengya.training.memory_settings import MemorySettings
from mengya.training.optim import hidden_matrices

# What part of the peak batched Newton-Schulz reaches: 24 matrices of 512 x 1,408 in 0.7 ms on one H200.
MUON_MFU = 0.30


@dataclass(frozen=True)
class Plan:
    """All that is known before the start; tokens are real ones, padding left out.

    Attributes:
        steps, tokens, epochs, seconds, cost: of the whole run; None where the length of the data is
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


def run(
    recipe: Path | None,
    overrides: Sequence[str],
    hardware: Hardware,
    verb: Verb | None = None,
    data_tokens: float | None = None,
    as_json: bool = False,
) -> None:
    """Print the plan of one recipe with its warnings, as tables or as JSON."""
    from mengya.stages.plan_report import print_plan, to_json
    from mengya.stages.plan_warnings import warnings_of

    plan = make_plan(recipe, overrides, hardware, verb, data_tokens)
    found = list(warnings_of(plan))
    if as_json:
        sys.stdout.write(json.dumps(to_json(plan, found), indent=2, ensure_ascii=False) + "\n")
    else:
        print_plan(plan, found, Console())


def make_plan(
    recipe: Path | None,
    overrides: Sequence[str] = (),
    hardware: Hardware | None = None,
    verb: Verb | None = None,
    data_tokens: float | None = None,
) -> Plan:
    """Compute the plan of one run.

    Args:
        data_tokens: tokens of one epoch where the shards are not there yet.

    Raises:
        UserError: settings, device or init_from are wrong or not known, all problems of a recipe at once.
    """
    hardware = hardware or Hardware()
    verb, config = read_run(recipe, overrides, verb)
    model = open_model(config, recipe)
    device, dtype = open_device(config, hardware, model.config)
    compiled = config.compiles(device.kind)
    labelled_only = verb == "sft" and not compiled and device.kind != "cuda"
    data = open_data(config, data_tokens, needs_labels=labelled_only)

    batch_rows = config.global_batch_size or config.micro_batch_size * hardware.devices
    batch = BatchSize(batch_rows, config.batch_ramp)
    steps, epochs = _length(config, data, batch)
    positions = batch_rows * config.data.sequence_length
    rows = None if steps is None else batch.first_row(steps)
    tokens = None if rows is None else rows * config.data.sequence_length * data.fill

    labelled = data.labelled if labelled_only else 1.0
    flops = training_flops(model, data.visible, labelled, reference=verb == "dpo")
    recomputed = recomputed_flops(model, data.visible) if config.gradient_checkpointing else 0.0
    settings = MemorySettings(
        rows=config.micro_batch_size,
        length=config.data.sequence_length,
        compute_bytes=4 if dtype is None else 2,
        compiled=compiled,
        on_cpu=device.kind == "cpu",
        optimizer=config.optimizer.name,
        gradient_checkpointing=config.gradient_checkpointing,
        fp8=config.precision == "fp8",
        devices=hardware.devices,
        sharded=config.strategy.name == "fsdp",
        keeps_gathered=not config.strategy.reshard_after_forward,
        reference=verb == "dpo",
        reference_copy=verb == "dpo" and getattr(config, "lora", None) is None,
        labelled=labelled,
    )
    expected = seconds_per_step = None
    if device.peak_flops is not None:
        share, width = flops.output / flops.total, model.config.hidden_size
        expected = expected_mfu(model_kind(model), run_kind(settings), width, share, device)
        work = positions * (flops.total + recomputed) / hardware.devices
        seconds_per_step = work / (device.peak_flops * expected.mfu)
        if config.optimizer.name in ("muon", "normuon"):
            # Ranks share it.
            matrices = hidden_matrices(dict(model.named_parameters()), config.optimizer.name)
            muon = muon_flops(matrices) / hardware.devices
            seconds_per_step += muon / (device.peak_flops * MUON_MFU)
    seconds = None
    if seconds_per_step is not None and rows is not None:
        seconds = rows / batch_rows * seconds_per_step
    price = hardware.price_per_hour
    return Plan(
        recipe=recipe,
        verb=verb,
        config=config,
        model=model,
        counts=parameter_counts(model.config),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        data=data,
        batch_rows=batch_rows,
        steps=steps,
        tokens=tokens,
        epochs=epochs,
        flops=flops,
        recomputed=recomputed,
        device=device,
        hardware=hardware,
        settings=settings,
        memory=training_memory(model, settings),
        expected=expected,
        seconds_per_step=seconds_per_step,
        tokens_per_second=positions * data.fill / seconds_per_step if seconds_per_step else None,
        seconds=seconds,
        cost=seconds / 3600 * hardware.devices * price if seconds and price else None,
    )


def _length(config: RunConfig, data: Data, batch: BatchSize) -> tuple[int | None, float | None]:
    """(steps, epochs) of the run, each None where the data's length is needed and not known."""
    steps = config.max_steps
    if steps is None and data.rows is not None:
        steps = batch.steps_for((config.epochs or 0) * data.rows)
    if steps is None or data.rows is None:
        return steps, config.epochs
    return steps, batch.first_row(steps) / data.rows


def run_kind(settings: MemorySettings) -> RunKind:
    if settings.on_cpu:
        return "cpu-bf16" if settings.compute_bytes == 2 else "cpu"
    if settings.compiled:
        return "fp8" if settings.fp8 else "compile"
    return "eager"


def model_kind(model: CausalLM) -> ModelKind:
    if model.config.num_experts:
        return "moe"
    return "mla" if model.config.kv_lora_rank is not None else "dense"

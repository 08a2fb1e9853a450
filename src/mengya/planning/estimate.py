"""Estimates the memory, FLOPs, time and cost of one run.

Takes a checked config, a `CausalLM` on the meta device and the hardware; gives a `Plan`. The FLOPs are those
that training logs its MFU by (flops.py), memory is counted in memory.py, and the MFU that training reaches
was measured (hardware.yaml).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mengya.data.rows.batch_size import BatchSize
from mengya.models.causal_lm import CausalLM
from mengya.planning.activations import MemorySettings
from mengya.planning.flops import Flops, muon_flops, recomputed_flops, training_flops
from mengya.planning.hardware import (
    Device,
    Expected,
    ModelKind,
    RunKind,
    expected_mfu,
    least_seconds,
)
from mengya.planning.inputs import Data, Hardware, Verb, open_data, open_device
from mengya.planning.memory import training_memory
from mengya.planning.plan import Plan
from mengya.planning.sizes import parameter_counts
from mengya.runtime.integers import ceil_div
from mengya.training.execution import Execution
from mengya.training.optim.build import hidden_matrices
from mengya.training.optim.registry import MATRIX_OPTIMIZERS
from mengya.training.run_config import RunConfig

# MFU of batched Newton-Schulz: 24 matrices of 512 x 1,408 in 0.7 ms on one H200.
MUON_MFU = 0.30


def estimate(
    verb: Verb,
    config: RunConfig,
    model: CausalLM,
    hardware: Hardware,
    *,
    recipe: Path | None = None,
    data_tokens: float | None = None,
    data: Data | None = None,
) -> Plan:
    """Estimate one run.

    Args:
        model: on the meta device; adapters in it, and the rest frozen, where LoRA trains.
        recipe: where the settings came from, for the title.
        data_tokens: tokens of one epoch where the shards do not exist yet.
        data: of a run that starts now and has it open; then nothing is measured either.

    Raises:
        UserError: the device is not known, or cannot compute in the precision asked for.
    """
    device, execution = open_device(config, hardware, model.config, measure=data is None)
    # Where the loss takes logits of labelled positions only (stages/run/losses.py).
    labelled_only = verb == "sft" and not execution.compile and device.kind != "cuda"
    batch_rows = config.global_batch_size or config.micro_batch_size * hardware.devices
    data = data or open_data(config, data_tokens, labelled_only, batch_rows)
    labelled = data.labelled if labelled_only else 1.0

    settings = _memory_settings(verb, config, execution, hardware.devices, labelled)
    length = _length(config, data, batch_rows)
    flops = training_flops(model, data.visible, labelled, reference=verb == "dpo")
    recomputed = recomputed_flops(model, data.visible) if config.gradient_checkpointing else 0.0
    expected = _expected(model, settings, flops, device)
    positions = length.batch_rows * config.data.sequence_length
    seconds_per_step = None
    if expected is not None and device.peak_flops is not None:
        work = positions * (flops.total + recomputed) / hardware.devices
        seconds_per_step = work / (device.peak_flops * expected.mfu)
        orthogonalized = _orthogonalization_flops(model, config.optimizer.name) / hardware.devices
        seconds_per_step += orthogonalized / (device.peak_flops * MUON_MFU)
        micro_batches = ceil_div(length.batch_rows, config.micro_batch_size * hardware.devices)
        layers = model.config.num_hidden_layers
        least = least_seconds(run_kind(settings), layers, micro_batches)
        if seconds_per_step < least:
            reached = expected.mfu * seconds_per_step / least
            expected = Expected(reached, "a step of few FLOPs: launches and overhead", True)
            seconds_per_step = least
    seconds = None
    if seconds_per_step is not None and length.rows is not None:
        seconds = length.rows / length.batch_rows * seconds_per_step
    price = hardware.price_per_hour
    return Plan(
        recipe=recipe,
        verb=verb,
        config=config,
        model=model,
        counts=parameter_counts(model.config),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        data=data,
        batch_rows=length.batch_rows,
        steps=length.steps,
        tokens=length.tokens,
        epochs=length.epochs,
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


class _Length(NamedTuple):
    """How long a run is; steps, epochs, rows and (real) tokens are None where the data's length is needed
    and not known. batch_rows: of a full step over all devices."""

    batch_rows: int
    steps: int | None
    epochs: float | None
    rows: int | None
    tokens: float | None


def _length(config: RunConfig, data: Data, batch_rows: int) -> _Length:
    batch = BatchSize(batch_rows, config.batch_ramp)
    steps, epochs = config.max_steps, config.epochs
    if steps is None and data.rows is not None:
        steps = batch.steps_for((config.epochs or 0) * data.rows)
    if steps is None:
        return _Length(batch_rows, None, epochs, None, None)
    rows = batch.first_row(steps)
    if data.rows is not None:
        epochs = rows / data.rows
    return _Length(batch_rows, steps, epochs, rows, rows * config.data.sequence_length * data.fill)


def _memory_settings(
    verb: Verb, config: RunConfig, execution: Execution, devices: int, labelled: float
) -> MemorySettings:
    return MemorySettings(
        rows=config.micro_batch_size,
        length=config.data.sequence_length,
        compute_bytes=4 if execution.autocast_dtype is None else 2,
        compiled=execution.compile,
        on_cpu=execution.device.type == "cpu",
        optimizer=config.optimizer.name,
        gradient_checkpointing=config.gradient_checkpointing,
        fp8=execution.fp8,
        devices=devices,
        sharded=config.strategy.name == "fsdp",
        keeps_gathered=not config.strategy.reshard_after_forward,
        reference=verb == "dpo",
        reference_copy=verb == "dpo" and getattr(config, "lora", None) is None,
        labelled=labelled,
    )


def _expected(
    model: CausalLM, settings: MemorySettings, flops: Flops, device: Device
) -> Expected | None:
    if device.peak_flops is None:
        return None
    share, width = flops.output / flops.total, model.config.hidden_size
    return expected_mfu(model_kind(model), run_kind(settings), width, share, device)


def _orthogonalization_flops(model: CausalLM, optimizer: str) -> float:
    """Of one step, over all ranks, which share it; 0 for optimizers that do not orthogonalize."""
    if optimizer not in MATRIX_OPTIMIZERS or not MATRIX_OPTIMIZERS[optimizer].orthogonalizes:
        return 0.0
    return muon_flops(hidden_matrices(dict(model.named_parameters()), optimizer))


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

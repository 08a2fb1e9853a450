"""The memory, FLOPs, time and cost of one run.

Takes a checked config, a `CausalLM` on the meta device and the hardware; gives a `Plan`. The FLOPs are those
that training logs its MFU by (flops.py), memory is counted in memory.py, and how much of a device's peak is
reached was measured (hardware.yaml).
"""

from __future__ import annotations

from pathlib import Path

from mengya.data.rows.batch_size import BatchSize
from mengya.models.causal_lm import CausalLM
from mengya.planning.flops import muon_flops, recomputed_flops, training_flops
from mengya.planning.hardware import ModelKind, RunKind, expected_mfu
from mengya.planning.inputs import Data, Hardware, Verb, open_data, open_device
from mengya.planning.memory import training_memory
from mengya.planning.memory_settings import MemorySettings
from mengya.planning.plan import Plan
from mengya.planning.sizes import parameter_counts
from mengya.training.optim.build import hidden_matrices
from mengya.training.run_config import RunConfig

# What part of the peak batched Newton-Schulz reaches: 24 matrices of 512 x 1,408 in 0.7 ms on one H200.
MUON_MFU = 0.30


def estimate(
    verb: Verb,
    config: RunConfig,
    model: CausalLM,
    hardware: Hardware,
    *,
    recipe: Path | None = None,
    data_tokens: float | None = None,
) -> Plan:
    """Compute the plan of one run.

    Args:
        model: on the meta device; adapters in it, and the rest frozen, where LoRA trains.
        recipe: where the settings came from, for the title.
        data_tokens: tokens of one epoch where the shards are not there yet.

    Raises:
        UserError: the device is not known, or cannot compute in the precision asked for.
    """
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

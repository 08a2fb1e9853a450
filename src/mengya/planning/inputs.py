"""What an estimate starts from: the data of one epoch, and the device.

Shards do not have to exist yet: what is missing is assumed, and named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from mengya.data.rows.datasets import PackedRows
from mengya.data.rows.mixing.plan import plan_mixture
from mengya.data.rows.mixing.use import MixtureUse, mixture_use
from mengya.data.rows.mixture import Mixture
from mengya.data.shards import MANIFEST, TokenShards
from mengya.errors import UserError
from mengya.models.config.model import ModelConfig
from mengya.planning.hardware import Device, named_device, this_device
from mengya.training.execution import Execution, execution_on, resolve_execution
from mengya.training.run_config import RunConfig
from mengya.training.run_length import run_length

Verb = Literal["pretrain", "sft", "dpo"]


@dataclass(frozen=True)
class Data:
    """The rows of one epoch.

    Attributes:
        rows: None where shards do not exist yet and nothing says how many rows they will have.
        visible: positions that a token sees on average. fill: share of the positions that is no padding.
        labelled: share of the positions with a label.
        missing: shard folders that do not exist; then visible and fill are those of full rows.
        too_long: for every shard folder with chats that do not fit a row, how many they are and the remedy.
        use: what the run takes of every source.
    """

    rows: int | None
    visible: float
    fill: float
    labelled: float
    missing: tuple[Path, ...] = ()
    too_long: tuple[tuple[str, str], ...] = ()
    use: MixtureUse = field(default_factory=MixtureUse)


@dataclass(frozen=True)
class Hardware:
    """What the user says of the machine; None: as the table or the machine itself says.

    Attributes:
        device: a name of hardware.yaml, or any name with peak_tflops and memory_gib.
        price_per_hour: of one device, in the user's currency.
    """

    device: str | None = None
    devices: int = 1
    peak_tflops: float | None = None
    memory_gib: float | None = None
    price_per_hour: float | None = None


def open_data(config: RunConfig, tokens: float | None, needs_labels: bool, batch_rows: int) -> Data:
    """What one epoch has: from the shards where they exist, else from `tokens`.

    Args:
        tokens: of one epoch, given by the user; used only where shards are missing.
        needs_labels: whether to read the masks.
        batch_rows: of a full step over all devices.

    Raises:
        UserError: phases or caps that the run cannot have.
    """
    S = config.data.sequence_length
    missing = tuple(s.path for s in config.data.train if not (s.path / MANIFEST).is_file())
    if missing:
        rows = None if tokens is None else max(1, round(tokens / S))
        return Data(rows, visible=(S + 1) / 2, fill=1.0, labelled=1.0, missing=missing)
    parts = [
        PackedRows(TokenShards(source.path), S, config.seed, source.order)
        for source in config.data.train
    ]
    lengths = [len(part) for part in parts]
    length = run_length(config, sum(lengths), batch_rows)
    planned = plan_mixture(config.data, lengths, length)
    mixture = Mixture(
        list(zip(parts, planned.weights, strict=True)), config.seed, planned.segments, length.rows
    )
    use = mixture_use(config.data, planned, mixture, length)
    labelled = mixture.labelled if needs_labels else 1.0
    lines = ((rows, rows.fitting.describe(rows.shards.kind, S)) for rows in mixture.sources)
    too_long = tuple(
        (f"{rows.shards.directory}: {line}", rows.fitting.remedy) for rows, line in lines if line
    )
    return Data(len(mixture), mixture.visible, mixture.fill, labelled, too_long=too_long, use=use)


def open_device(
    config: RunConfig, hardware: Hardware, shape: ModelConfig, measure: bool = True
) -> tuple[Device, Execution]:
    """The device to plan for, and how the run computes on it.

    Args:
        measure: the peak of a CPU, in 0.2 seconds.

    Raises:
        UserError: the device is not known, or cannot compute in the precision asked for.
    """
    if hardware.device is None:
        execution = resolve_execution(config)
        rows = min(config.micro_batch_size * config.data.sequence_length, 4096)
        product = (rows, shape.hidden_size, shape.intermediate_size)
        device = this_device(
            execution.device, execution.autocast_dtype, product if measure else None
        )
    else:
        device = _device_elsewhere(hardware.device, hardware, half=config.precision != "fp32")
        execution = _execution_elsewhere(config, device)
    if execution.fp8 and not device.fp8 and measure:
        raise UserError(
            f"precision=fp8, but {device.name} does not multiply fp8; write precision=bf16 or auto"
        )
    if hardware.peak_tflops is not None:
        device = device._replace(peak_flops=hardware.peak_tflops * 1e12)
    if hardware.memory_gib is not None:
        device = device._replace(memory=hardware.memory_gib * 2**30)
    return device, execution


def _device_elsewhere(name: str, hardware: Hardware, half: bool) -> Device:
    """A device by name, of hardware.yaml unless the user gives peak and memory."""
    if hardware.peak_tflops is not None and hardware.memory_gib is not None:
        return Device(name, "cuda", None, 0.0, bf16=True, fp8=True)
    return named_device(name, half)


def _execution_elsewhere(config: RunConfig, device: Device) -> Execution:
    """What `resolve_execution` would give there."""
    if config.precision == "bf16" and not device.bf16:
        raise UserError(
            f"precision=bf16, but {device.name} has no bf16; write precision=fp16 or auto"
        )
    fp16 = config.precision == "fp16" or not device.bf16
    half = torch.float16 if fp16 else torch.bfloat16
    dtype = None if config.precision == "fp32" else half
    return execution_on(torch.device(device.kind), dtype, config)

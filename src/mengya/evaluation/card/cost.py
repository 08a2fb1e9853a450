"""What a stage cost: steps, tokens, hours, energy, and the size of what came out.

Takes a run folder and a checkpoint; what no file tells is None.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mengya.errors import UserError
from mengya.evaluation.card.curves import EVENTS
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.open_checkpoint import ADAPTER, checkpoint_config
from mengya.runtime.jsonl import read_jsonl, read_metrics


@dataclass(frozen=True)
class Cost:
    """
    Attributes:
        hours: of the training steps; validation and saving are not in it.
        hardware: name of the device, of which there were `devices`.
        energy_kwh: of the devices in these hours, from `power_watts`, the mean of each line of all devices
            together; None where a line does not have it.
        parameters: of the model; weights_bytes: of the files of the checkpoint.
    """

    steps: int | None
    tokens: int | None
    hours: float | None
    hardware: str | None
    devices: int | None
    energy_kwh: float | None
    parameters: int | None
    weights_bytes: int


def cost_of(checkpoint: Path, run: Path | None) -> Cost:
    """Raises:
    UserError: metrics.jsonl is not what a run writes, or config.json is not supported.
    """
    steps = tokens = None
    hours = energy = 0.0
    is_powered = True
    last = checkpoint.name.removeprefix("step-")
    until = int(last) if last.isdecimal() else None
    for line in read_metrics(run / "metrics.jsonl") if run else ():
        if until is not None and line["step"] > until:
            break
        speed, seen = line.get("tokens_per_second"), line.get("tokens")
        if not speed or seen is None:
            continue
        span = max(0, seen - (tokens or 0)) / speed / 3600
        hours += span
        watts = line.get("power_watts")
        is_powered = is_powered and (watts is not None or not span)
        energy += (watts or 0.0) * span / 1000
        steps, tokens = line["step"], seen
    hardware, devices = _machine(run)
    return Cost(
        steps=steps,
        tokens=tokens,
        hours=hours if steps else None,
        hardware=hardware,
        devices=devices,
        energy_kwh=energy if hours and is_powered else None,
        parameters=_parameters(checkpoint),
        weights_bytes=sum(file.stat().st_size for file in checkpoint.glob("*.safetensors")),
    )


def _machine(run: Path | None) -> tuple[str | None, int | None]:
    """Of the last start of the run."""
    starts = [e for e in read_jsonl(run / EVENTS) if e.get("hardware")] if run else []
    if not starts:
        return None, None
    devices = starts[-1].get("devices")
    return str(starts[-1]["hardware"]), devices if isinstance(devices, int) else None


def _parameters(checkpoint: Path) -> int | None:
    """None of an adapter whose base is not here."""
    if (checkpoint / ADAPTER).is_file():
        base = json.loads((checkpoint / ADAPTER).read_text(encoding="utf-8"))
        if not Path(str(base.get("base_model_name_or_path"))).is_dir():
            return None
    try:
        model = CausalLM(checkpoint_config(checkpoint), device="meta")
    except UserError:
        return None
    return sum(weights.numel() for weights in model.parameters())

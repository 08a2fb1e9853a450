"""A plan for people (tables of 80 columns) and for machines (JSON with fixed keys)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from mengya.data.rows.mixing.use import shares_said
from mengya.models.hf.config import CLASSES
from mengya.planning.lint import LintWarning
from mengya.planning.plan import Plan

_MEMORY_NAMES = {
    "weights": "weights, fp32",
    "compute_copy": "weights, half precision",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "reference": "reference model",
    "activations": "activations",
    "logits": "logits and loss",
    "communication": "communication",
    "reserve": "context, fragmentation",
}


def print_plan(plan: Plan, warnings: Sequence[LintWarning], console: Console) -> None:
    """One table of four parts, five for a mixture, then the warnings of lint."""
    devices = plan.hardware.devices
    on = plan.device.name if devices == 1 else f"{devices} x {plan.device.name}"
    title = f"{plan.recipe or 'command line'}: estimate of {plan.verb} on {on}"
    console.print(title, style="bold", highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(style="dim")
    for rows in (_model(plan), _work(plan), _sources(plan), _memory(plan), _time(plan)):
        for row in rows:
            table.add_row(*row)
        if rows:
            table.add_row()
    console.print(table, highlight=False)
    for warning in warnings:
        console.print(f"warning: {warning.rule}", style="yellow", highlight=False)
        text = f"{warning.message}.\n-> {warning.remedy}."
        console.print(Padding(text, (0, 0, 0, 2)), highlight=False, markup=False)


_TableRow = tuple[str, str, str, str]


def _model(plan: Plan) -> list[_TableRow]:
    counts = plan.counts
    name = CLASSES[plan.model.config.model_type].removesuffix("ForCausalLM")
    rows = [("model", "parameters", f"{counts.total:,}", name)]
    if counts.active != counts.total:
        rows.append(("", "active per token", f"{counts.active:,}", ""))
    if plan.trained < counts.total:
        rows.append(("", "trained", f"{plan.trained:,}", "LoRA"))
    share = counts.embedding / counts.total
    rows.append(("", "embedding", f"{counts.embedding:,}", f"{share:.0%} of all"))
    return rows


def _work(plan: Plan) -> list[_TableRow]:
    S = plan.config.data.sequence_length
    shape = f"{plan.batch_rows} rows x {S:,}"
    tokens = plan.batch_rows * S
    rows = [("work", "a step", f"{tokens:,} tokens", shape)]
    if plan.steps is not None and plan.tokens is not None:
        rows.append(("", "steps", f"{plan.steps:,}", ""))
        per = f"{plan.tokens / plan.counts.total:.1f} per parameter"
        rows.append(("", "tokens", f"{plan.tokens:,.0f}", per))
        rows.append(("", "training FLOPs", f"{plan.flops.total * plan.tokens:.3g}", ""))
    if plan.epochs is not None:
        rows.append(("", "epochs", f"{plan.epochs:.2f}", ""))
    visible = f"a token sees {plan.data.visible:,.0f} positions"
    rows.append(("", "FLOPs per token", f"{plan.flops.total / 1e6:,.1f}M", visible))
    return rows


def _sources(plan: Plan) -> list[_TableRow]:
    use = plan.data.use
    if len(use.sources) < 2:
        return []
    rows = [
        ("" if number else "sources", s.name, f"{s.share:.1%}", f"{s.epochs:.2f} epochs")
        for number, s in enumerate(use.sources)
    ]
    names = [source.name for source in use.sources]
    for phase in use.phases if len(use.phases) > 1 else ():
        steps = f"steps {phase.start + 1:,} to {phase.end:,}"
        said = shares_said(names, phase.shares) if phase.shares else "never comes"
        rows.append(("", steps, "", said))
    return rows


def _memory(plan: Plan) -> list[_TableRow]:
    parts = {name: size for name, size in asdict(plan.memory).items() if size}
    notes = {"activations": f"{plan.settings.rows} rows at once"}
    first = "memory"
    rows = []
    for name, size in parts.items():
        rows.append((first, _MEMORY_NAMES[name], f"{size / 2**30:.2f} GiB", notes.get(name, "")))
        first = ""
    room = f"of {plan.device.memory / 2**30:.1f} GiB a device"
    rows.append(("", "all", f"{plan.memory.needed / 2**30:.2f} GiB", room))
    return rows


def _time(plan: Plan) -> list[_TableRow]:
    if plan.expected is None or plan.tokens_per_second is None or plan.device.peak_flops is None:
        return [("time", "not known", "", "the device's peak is not known")]
    peak = f"of {plan.device.peak_flops / 1e12:,.3g} TFLOP/s" + (
        ", estimated" if plan.expected.estimate else ", measured"
    )
    rows = [("time", "expected MFU", f"{plan.expected.mfu:.1%}", peak)]
    speed = f"{plan.tokens_per_second:,.0f}"
    linear = "communication not counted" if plan.hardware.devices > 1 else ""
    rows.append(("", "tokens/s", speed, linear))
    if plan.seconds is None:
        hours = 1e9 / plan.tokens_per_second / 3600
        rows.append(("", "hours", f"{hours:,.2f}", "for every billion tokens"))
    else:
        rows.append(("", "hours", f"{plan.seconds / 3600:,.2f}", _clock(plan.seconds)))
    if plan.cost is not None:
        price = f"at {plan.hardware.price_per_hour:g} per device and hour"
        rows.append(("", "cost", f"{plan.cost:,.2f}", price))
    return rows


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def to_json(plan: Plan, warnings: Sequence[LintWarning]) -> dict[str, Any]:
    """The plan in fixed keys; bytes, seconds and plain counts, null where something is not known."""
    memory = {name: round(size) for name, size in asdict(plan.memory).items()}
    return {
        "recipe": str(plan.recipe) if plan.recipe else None,
        "verb": plan.verb,
        "class": CLASSES[plan.model.config.model_type],
        "parameters": {**plan.counts._asdict(), "trained": plan.trained},
        "data": {
            "rows": plan.data.rows,
            "visible": plan.data.visible,
            "fill": plan.data.fill,
            "missing": [str(path) for path in plan.data.missing],
            "sources": [asdict(source) for source in plan.data.use.sources],
            "phases": [asdict(phase) for phase in plan.data.use.phases],
        },
        "run": {
            "batch_rows": plan.batch_rows,
            "sequence_length": plan.config.data.sequence_length,
            "steps": plan.steps,
            "tokens": plan.tokens,
            "epochs": plan.epochs,
        },
        "flops": {
            **plan.flops._asdict(),
            "per_token": plan.flops.total,
            "recomputed": plan.recomputed,
            "run": plan.flops.total * plan.tokens if plan.tokens is not None else None,
        },
        "device": {
            "name": plan.device.name,
            "devices": plan.hardware.devices,
            "peak_flops": plan.device.peak_flops,
            "memory": round(plan.device.memory),
        },
        "memory": {
            **memory,
            "allocated": round(plan.memory.allocated),
            "needed": round(plan.memory.needed),
        },
        "speed": {
            "mfu": plan.expected.mfu if plan.expected else None,
            "estimate": plan.expected.estimate if plan.expected else None,
            "source": plan.expected.source if plan.expected else None,
            "seconds_per_step": plan.seconds_per_step,
            "tokens_per_second": plan.tokens_per_second,
            "seconds": plan.seconds,
            "price_per_hour": plan.hardware.price_per_hour,
            "cost": plan.cost,
        },
        "warnings": [warning._asdict() for warning in warnings],
    }

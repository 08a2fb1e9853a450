"""Suggests settings with which a plan fits into the memory of its device.

Takes a `Plan` that needs more than there is; gives the text of a remedy, with the numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mengya.planning.activations import MemorySettings
from mengya.planning.memory import training_memory
from mengya.planning.plan import Plan

GIB = 2**30


def suggest_fit(plan: Plan) -> str:
    """Each way to fit with the largest micro-batch that it allows, or what remains when there is none."""
    found: list[str] = []
    most = 0
    for words, changes in _ways(plan):
        settings = replace(plan.settings, **changes)
        rows = _largest_rows(plan, settings)
        if rows <= most:
            continue  # a smaller micro-batch alone does it
        most = rows
        if rows != plan.settings.rows:
            words = f"{words} micro_batch_size={rows}".strip()
        needed = training_memory(plan.model, replace(settings, rows=rows)).needed
        found.append(f"{words} ({needed / GIB:.1f} GiB)")
    if found:
        return "write " + ", or ".join(found)
    least = replace(plan.settings, rows=1, gradient_checkpointing=True)
    needed = training_memory(plan.model, least).needed
    return (
        f"one row with gradient_checkpointing=true still needs {needed / GIB:.1f} GiB: take a device "
        "with more memory, more devices with strategy.name=fsdp, or a smaller model"
    )


def _ways(plan: Plan) -> list[tuple[str, dict[str, Any]]]:
    ways: list[tuple[str, dict[str, Any]]] = [("", {})]
    recompute = ("gradient_checkpointing=true", {"gradient_checkpointing": True})
    if not plan.settings.gradient_checkpointing:
        ways.append(recompute)
    if not plan.settings.sharded and plan.hardware.devices > 1:
        shard = ("strategy.name=fsdp", {"sharded": True})
        ways.append(shard)
        if not plan.settings.gradient_checkpointing:
            ways.append((f"{shard[0]} {recompute[0]}", {**shard[1], **recompute[1]}))
    return ways


def _largest_rows(plan: Plan, settings: MemorySettings) -> int:
    """The largest micro-batch up to the recipe's that fits and divides the device's share; 0: none."""
    share = max(1, plan.batch_rows // plan.hardware.devices)
    for rows in range(plan.settings.rows, 0, -1):
        memory = training_memory(plan.model, replace(settings, rows=rows))
        if share % rows == 0 and memory.needed <= plan.device.memory:
            return rows
    return 0

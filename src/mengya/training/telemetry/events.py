"""events.jsonl: what happened in a run besides its metrics, for curves and report cards.

    {"step": 0, "event": "start", "hardware", "devices", "versions", "commit", "command"}
    {"step": 400, "event": "resume", ...}        as of start
    {"step": 412, "event": "skipped" | "spike" | "rewind", "text"}

Lines are only added: what a return to a checkpoint undid has happened all the same.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import torch

from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line, remove_cut_line
from mengya.runtime.machine import commit_of_clone, hardware_name, package_versions

EVENTS = "events.jsonl"
Event = Literal["start", "resume", "skipped", "spike", "rewind"]


def _typed() -> str | None:
    """What was typed; None where a program called mengya."""
    is_ours = Path(sys.argv[0]).name in ("mengya", "__main__.py")
    return shlex.join(["mengya", *sys.argv[1:]]) if is_ours else None


class EventLog:
    """The events of one run, on the rank that writes.

    Args:
        run_dir: None writes nothing: another rank, or a loop without a folder.
    """

    def __init__(self, run_dir: Path | None) -> None:
        self._path = None if run_dir is None else run_dir / EVENTS

    def begin(self, step: int, device: torch.device, devices: int) -> None:
        """Note the start of a run, which removes the events of an earlier one, or that it is resumed."""
        if self._path is None:
            return
        if step == 0:
            write_text(self._path, "")
        remove_cut_line(self._path)
        self._add(
            {
                "step": step,
                "event": "resume" if step else "start",
                "hardware": hardware_name(device),
                "devices": devices,
                "versions": package_versions(),
                "commit": commit_of_clone(),
                "command": _typed(),
            }
        )

    def add(self, event: Event, step: int, text: str) -> None:
        """Args:
        step: counted from 1, as in metrics.jsonl.
        """
        self._add({"step": step, "event": event, "text": text})

    def _add(self, values: dict[str, Any]) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json_line(values))

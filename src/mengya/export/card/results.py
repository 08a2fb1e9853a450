"""evaluation.json of a checkpoint as rows for the model card; what was not measured has no row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "evaluation.json"


@dataclass(frozen=True)
class ResultRow:
    """One figure.

    Attributes:
        measure: bits_per_char, preference, passkey or the name of an exam.
        interval: 95 %; "" without.
    """

    measure: str
    value: str
    interval: str
    items: int


def read_results(checkpoint: Path) -> list[ResultRow]:
    """Rows of the file that `mengya evaluate` wrote; [] where there is none that can be read."""
    try:
        values = json.loads((checkpoint / FILE).read_text(encoding="utf-8"))
        return list(_rows(values))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _rows(values: dict[str, Any]) -> Iterator[ResultRow]:
    if text := values.get("text"):
        yield ResultRow("bits_per_char", f"{text['bits_per_char']:.4f}", "", text["characters"])
    if preference := values.get("preference"):
        yield _share("preference", preference, preference["pairs"])
    for cell in values.get("passkey") or []:
        name = f"passkey {cell['length']:,}, {cell['depth']:.0%}"
        yield _share(name, cell, cell["samples"])
    for name, exam in (values.get("exams") or {}).items():
        shots = f" ({exam['num_fewshot']}-shot)" if "num_fewshot" in exam else ""
        yield _share(f"{name}{shots}", exam["overall"], exam["overall"]["questions"])


def _share(measure: str, values: dict[str, Any], items: int) -> ResultRow:
    low, high = values["interval"]
    return ResultRow(measure, f"{values['accuracy']:.1%}", f"{low:.1%} – {high:.1%}", items)

"""What a quantization was made of and what it cost: quantization.json, and a table for the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mengya.quantization.config import QuantizationConfig
from mengya.quantization.driver import MatrixRecord
from mengya.runtime.files import write_text
from mengya.version import __version__

RECORD = "quantization.json"
_FORMAT = 1
_ROWS = 10  # of a table


@dataclass(frozen=True)
class QuantizationRecord:
    """
    Attributes:
        weights_sha256: of the checkpoint.
        calibration: facts of `CalibrationRows`; None without.
        matrices: in the order of the model.
    """

    config: QuantizationConfig
    weights_sha256: str
    calibration: dict[str, Any] | None
    matrices: Sequence[MatrixRecord]

    @property
    def mean_bits(self) -> float:
        """Bits of a quantized weight on average, scales and zero points apart."""
        sizes = [each.shape[0] * each.shape[1] for each in self.matrices]
        bits = sum(size * each.bits for size, each in zip(sizes, self.matrices, strict=True))
        return bits / sum(sizes)

    @property
    def fallbacks(self) -> list[MatrixRecord]:
        """Matrices that another method was used for."""
        return [each for each in self.matrices if each.note]

    def damped(self, damping: float) -> list[MatrixRecord]:
        """Matrices whose Hessian took more damping than was asked for."""
        return [
            each for each in self.matrices if each.damping is not None and each.damping > damping
        ]

    def values(self) -> dict[str, Any]:
        """What quantization.json holds. Nothing depends on time or place, so that a resumed run writes the
        same bytes, and a push makes no path of this machine public."""
        settings = self.config.model_dump(
            mode="json",
            exclude={"checkpoint", "calibration", "out", "overwrite", "threads", "parity", "card"},
        )
        return {
            "format": _FORMAT,
            "mengya_version": __version__,
            "method": self.config.method_name,
            "layout": self.config.layout_name,
            "scheme": asdict(self.config.scheme()),
            "mean_bits": round(self.mean_bits, 4),
            "weights_sha256": self.weights_sha256,
            "calibration": self.calibration,
            "rounded_to_nearest": len(self.fallbacks),
            "more_damping": len(self.damped(self.config.damping)),
            "config": settings,
            "layers": [asdict(each) for each in self.matrices],
        }

    def write(self, folder: Path) -> None:
        text = json.dumps(self.values(), ensure_ascii=False, indent=1)
        write_text(folder / RECORD, text + "\n")


def print_record(record: QuantizationRecord, console: Console) -> None:
    """The table of errors, then what was unusual."""
    rows = _rows(record.matrices)
    worst = rows
    if len(rows) > _ROWS:
        worst = sorted(rows, key=lambda row: -row.error)[:_ROWS]
    what = "output" if record.calibration is not None else "weight"
    table = Table(
        title=f"relative error of a matrix's {what}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("layer", overflow="fold")
    method = record.config.method_name
    for name in ("bits", method) if method == "rtn" else ("bits", method, "rtn"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in worst:
        errors = [f"{row.error:.4f}", f"{row.rtn_error:.4f}"]
        table.add_row(row.name, f"{row.bits:g}", *errors[: len(table.columns) - 2])
    console.print(table)
    if len(rows) > _ROWS:
        _say(console, f"the {_ROWS} worst of {len(rows)}; all of them are in {RECORD}")
    if method != "rtn":
        _say(console, "rtn: the error that rounding to nearest, without calibration, would have")
    if fallbacks := record.fallbacks:
        first = fallbacks[0]
        _say(
            console,
            f"{len(fallbacks)} matrices were rounded to nearest because they saw too few tokens, such as "
            f"{first.name} ({first.note.removeprefix('rtn: ')}); more calibration.num_sequences reach them",
        )
    if damped := record.damped(record.config.damping):
        most = max(each.damping or 0 for each in damped)
        _say(console, f"{len(damped)} Hessians took more damping, up to {most:g}")


@dataclass(frozen=True)
class _Row:
    name: str
    bits: float
    error: float
    rtn_error: float


def _rows(matrices: Sequence[MatrixRecord]) -> list[_Row]:
    """One of each matrix; the experts of a layer together, with their mean."""
    named: dict[str, list[MatrixRecord]] = {}
    for each in matrices:
        name = re.sub(r"\.experts\.\d+\.", ".experts.*.", each.name.removeprefix("model."))
        named.setdefault(name, []).append(each)
    return [
        _Row(
            name,
            sum(each.bits for each in some) / len(some),
            sum(each.error for each in some) / len(some),
            sum(each.rtn_error for each in some) / len(some),
        )
        for name, some in named.items()
    ]


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)

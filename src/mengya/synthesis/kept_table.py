"""The table of what was made and what was dropped, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table


def kept_table(title: str, kept: Mapping[str, int], dropped: Mapping[str, int]) -> Table:
    """What was made and what was dropped by reason."""
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("count", justify="right")
    for name, count in kept.items():
        table.add_row(name, f"{count:,}")
    for reason, count in sorted(dropped.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(f"dropped: {reason}", f"{count:,}")
    return table

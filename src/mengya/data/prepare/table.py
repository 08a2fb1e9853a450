"""The table that `mengya prepare` ends with: what was read, kept and dropped, by source and reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from mengya.data.prepare.build import SourceCounts


def print_table(
    console: Console, title: str, sources: Sequence[str], counts: Sequence[SourceCounts]
) -> None:
    """One row a source, of the names and counts in the same order."""
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("source", overflow="fold")
    for name in ("read", "bad", "dropped", "kept", "held out", "tokens", "characters"):
        table.add_column(name, justify="right", no_wrap=name != "dropped", overflow="fold")
    for source, counted in zip(sources, counts, strict=True):
        total, held = counted.total, counted.kept.get("validation")
        dropped = "\n".join(f"{n:,} {reason}" for reason, n in sorted(counted.dropped.items()) if n)
        numbers = (total.samples, held.samples if held else 0, total.tokens, total.characters)
        table.add_row(
            source,
            f"{counted.read:,}",
            f"{counted.bad:,}",
            dropped or "0",
            *(f"{n:,}" for n in numbers),
        )
    console.print(table)

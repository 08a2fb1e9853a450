"""What a person sees while a run trains: a bar on a terminal, lines without one, all lines in log.txt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG = "log.txt"
_LINES_ABOVE = 40  # of metrics in a run, above the bar; log.txt has all


class ProgressBar:
    """Steps done of all, with loss, tokens/s, MFU where the device's peak is known, and the time left.

    On a terminal some forty of the lines stay above the bar. Every line also goes to `log`, with its time.

    Args:
        shown: on the rank that speaks; `warn` shows on every rank.
        log: a file to append to; None keeps none.
    """

    def __init__(self, name: str, total: int, shown: bool, log: Path | None = None) -> None:
        self._console = Console(stderr=True, quiet=not shown)
        self._loud = self._console if shown else Console(stderr=True)
        self._total = total
        self._log = log
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (shown and self._console.is_terminal),
        )
        self._name = name
        self._task = self._bar.add_task(name, total=total, numbers="")
        self._next_line = 0

    def start_at(self, step: int) -> None:
        """Show `step` as done; called before the bar runs."""
        self._bar.reset(self._task, completed=step)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if kind is not None:
            self._write(f"ended by {kind.__name__}: {error}")

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Move the bar; show and log a line of metrics."""
        numbers = (
            f"loss {values.get('loss', float('nan')):.3f}  {values['tokens_per_second']:,.0f} tok/s"
        )
        if "mfu" in values:
            numbers += f"  {values['mfu']:.1%} MFU"
        self._bar.update(self._task, completed=step, numbers=numbers)
        line = f"{self._name} step {step}/{self._total}  {numbers}"
        if not self._console.is_terminal or step >= self._next_line or step == self._total:
            self._next_line = step + max(1, self._total // _LINES_ABOVE)
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._write(line)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._write(text)

    def warn(self, text: str) -> None:
        """A line that shows even where the bar does not, on every rank."""
        self._loud.print(text, style="bold red", highlight=False, markup=False, soft_wrap=True)
        self._write(f"warning: {text}")

    def _write(self, text: str) -> None:
        if self._log is None:
            return
        with suppress(OSError), self._log.open("a", encoding="utf-8") as file:  # not worth a run
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

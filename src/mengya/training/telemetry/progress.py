"""What a person sees while a run trains: a bar on a terminal, plain lines in a log file."""

from __future__ import annotations

from collections.abc import Mapping
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


class ProgressBar:
    """Steps done of all, with loss, tokens/s, MFU where the device's peak is known, and the time left."""

    def __init__(self, name: str, total: int, shown: bool) -> None:
        self._console = Console(stderr=True, quiet=not shown)
        self._loud = self._console if shown else Console(stderr=True)
        self._total = total
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

    def update(self, step: int, values: Mapping[str, float]) -> None:
        numbers = (
            f"loss {values.get('loss', float('nan')):.3f}  {values['tokens_per_second']:,.0f} tok/s"
        )
        if "mfu" in values:
            numbers += f"  {values['mfu']:.1%} MFU"
        self._bar.update(self._task, completed=step, numbers=numbers)
        if not self._console.is_terminal:
            self._console.print(
                f"{self._name} step {step}/{self._total}  {numbers}", highlight=False
            )

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """A line that shows even where the bar does not, on every rank."""
        self._loud.print(text, style="bold red", highlight=False, markup=False, soft_wrap=True)

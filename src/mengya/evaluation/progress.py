"""A bar on stderr for one long part of a measurement."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

OnProgress = Callable[[int, int | None], None]
"""Called with how many are done, and of how many; None where nobody knows."""


def silent(done: int, of: int | None) -> None:
    """Tell nobody."""


@contextmanager
def progress_bar(show: bool, title: str) -> Iterator[OnProgress]:
    """What is yielded moves the bar; it moves none where `show` is false."""
    if not show:
        yield silent
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)

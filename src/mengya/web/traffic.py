"""The requests that a server is answering now, and whether it takes new ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(path: str, status: int, seconds: float | None) -> None:
    """No metrics."""


@dataclass
class Traffic:
    """Shared by the gate (which counts), the handlers (which refuse) and the server (which drains).

    Attributes:
        on_answer: called after every request with the route's path ("other" when there is none), the
            status (499: the client disconnected) and, for requests of the API, the seconds it took.
        in_flight: requests of the API that are being answered.
        draining: the server is shutting down; handlers should refuse new work.
    """

    on_answer: Callable[[str, int, float | None], None] = _ignore
    in_flight: int = 0
    draining: bool = False

"""Triton kernels on the CPU: a process in which Triton interprets them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

Interpret = Callable[[Callable[[], None]], None]
"""Runs a function of a module, or a partial of one, and raises what it raises."""


@contextmanager
def triton_interpreter() -> Iterator[Interpret]:
    """One process for many checks; its own, since a kernel is interpreted or compiled from its import on."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_choose_interpreter) as pool:
        yield lambda check: pool.submit(check).result()


def _choose_interpreter() -> None:
    os.environ["TRITON_INTERPRET"] = "1"

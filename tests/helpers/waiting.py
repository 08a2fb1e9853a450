"""Waits for what another thread or process is about to do."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(true: Callable[[], bool], seconds: float = 5.0) -> float:
    """Seconds until `true()`; fails after `seconds`."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it never became true"
        time.sleep(0.01)
    return time.monotonic() - began

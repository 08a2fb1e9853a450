"""Threads of the CPU as a setting: in effect in the thread that asks, whatever the others have."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import psutil
import pytest
import torch

from mengya.runtime.device import init_device, usable_cores


@pytest.fixture
def own_threads() -> Iterator[None]:
    """Later tests find the threads that they would have had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def thread_ids() -> set[int]:
    return {thread.id for thread in psutil.Process().threads()}


def in_a_thread(threads: int | None) -> tuple[int, int]:
    """(what torch says, threads that its first parallel computation starts) in a new thread."""
    found: list[int] = []

    def compute() -> None:
        init_device("cpu", threads)
        before = thread_ids()
        torch.ones(1 << 20).add_(1)
        found.extend((torch.get_num_threads(), len(thread_ids() - before)))

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    return found[0], found[1]


def test_threads_hold_in_the_thread_that_asks(own_threads: None) -> None:
    mine = torch.get_num_threads()
    assert in_a_thread(3) == (3, 2)  # the third is the thread itself
    assert in_a_thread(1) == (1, 0)
    assert torch.get_num_threads() == mine
    torch.set_num_threads(2)
    assert in_a_thread(None) == (2, 1)  # nothing set: what torch chooses


def test_more_threads_than_cores_are_said(
    own_threads: None, caplog: pytest.LogCaptureFixture
) -> None:
    cores = usable_cores()
    with caplog.at_level(logging.WARNING):
        init_device("cpu", cores)
        assert not caplog.messages
        init_device("cpu", cores + 1)
    (said,) = caplog.messages
    assert f"threads={cores + 1}" in said and f"threads={cores} would be faster" in said

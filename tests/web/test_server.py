"""The end of a server: signals, draining, an address that is taken."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from mengya.errors import UserError
from mengya.web.app import make_app
from mengya.web.gate import Traffic
from mengya.web.server import DrainingServer
from mengya.web.settings import WebSettings
from tests.helpers.waiting import wait_until


@dataclass
class Slow:
    """An app whose one route answers when it is released, or is cancelled."""

    settings: WebSettings
    traffic: Traffic = field(default_factory=Traffic)
    urls: list[str] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    failed: bool = False

    def server(self) -> DrainingServer:
        app = make_app(self.settings, self.traffic, None)

        @app.post("/v1/notes")
        async def write(note: dict[str, str]) -> int:
            return len(note)

        @app.get("/v1/slow")
        async def slow() -> str:
            while not (self.released.is_set() or self.cancelled.is_set()):
                await asyncio.sleep(0.01)
            return "cancelled" if self.cancelled.is_set() else "released"

        return DrainingServer(
            app,
            self.settings,
            self.traffic,
            on_listening=self.urls.append,
            has_failed=lambda: self.failed,
            cancel_all=self.cancelled.set,
        )


@contextmanager
def running(slow: Slow) -> Iterator[tuple[DrainingServer, threading.Thread]]:
    server = slow.server()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: bool(slow.urls))
        yield server, thread
    finally:
        slow.released.set()
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def ask(slow: Slow, answers: list[str]) -> threading.Thread:
    def get() -> None:
        answers.append(httpx.get(f"{slow.urls[0]}/v1/slow", timeout=20).json())

    thread = threading.Thread(target=get)
    thread.start()
    wait_until(lambda: slow.traffic.in_flight == 1)
    return thread


def test_running_requests_finish_before_the_end() -> None:
    slow, answers = Slow(WebSettings(port=0)), []
    with running(slow) as (server, thread):
        asking = ask(slow, answers)
        server.handle_exit(signal.SIGTERM, None)
        assert slow.traffic.draining
        time.sleep(0.3)
        assert thread.is_alive() and not answers
        slow.released.set()
        asking.join(10)
        thread.join(10)
        assert answers == ["released"] and not thread.is_alive()


def test_requests_that_outlast_the_limit_are_cancelled() -> None:
    slow, answers = Slow(WebSettings(port=0, drain_seconds=0.2)), []
    with running(slow) as (server, thread):
        asking = ask(slow, answers)
        server.handle_exit(signal.SIGINT, None)
        asking.join(10)
        thread.join(10)
        assert answers == ["cancelled"] and not thread.is_alive()


def test_it_ends_when_what_is_behind_it_has_failed() -> None:
    slow = Slow(WebSettings(port=0))
    with running(slow) as (_, thread):
        slow.failed = True
        thread.join(10)
        assert not thread.is_alive()


def test_an_address_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port}.*port=0"):
            Slow(WebSettings(port=port)).server().run()


def test_an_address_of_another_machine_or_for_root() -> None:
    with pytest.raises(UserError, match=r"cannot listen on 192.0.2.1:0.*host=127.0.0.1"):
        Slow(WebSettings(host="192.0.2.1", port=0)).server().run()
    with pytest.raises(UserError, match=r"cannot listen on no.such.invalid:0.*host=127.0.0.1"):
        Slow(WebSettings(host="no.such.invalid", port=0)).server().run()

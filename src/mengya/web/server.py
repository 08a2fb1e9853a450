"""uvicorn with a graceful end: on SIGTERM or Ctrl-C new requests are refused and running ones finish."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from mengya.errors import UserError
from mengya.web.gate import Traffic
from mengya.web.settings import WebSettings


class DrainingServer(uvicorn.Server):
    """Runs an app until a signal stops it, or the work behind it has failed.

    The first signal drains: the app refuses requests (`traffic.draining`) until none runs or
    `drain_seconds` have passed; those that still run then are cancelled. A second signal cancels them
    now; a second Ctrl-C ends the process at once.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: WebSettings,
        traffic: Traffic,
        *,
        on_listening: Callable[[str], None],
        has_failed: Callable[[], bool],
        cancel_all: Callable[[], None],
    ) -> None:
        """
        Args:
            on_listening: called with the URL once listening; what the app serves may still load.
            has_failed: whether the server should end because what is behind it broke.
            cancel_all: ends the requests that outlast `drain_seconds`.
        """
        config = uvicorn.Config(
            app, host=settings.host, port=settings.port, log_config=None, access_log=False,
            server_header=False, timeout_graceful_shutdown=5,
        )  # fmt: skip
        super().__init__(config)
        self._settings, self._traffic = settings, traffic
        self._on_listening, self._has_failed = on_listening, has_failed
        self._cancel_all = cancel_all
        self._deadline: float | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the end. The address is taken before the app starts, which may load for minutes.

        Raises:
            UserError: the address cannot be listened on.
        """
        sockets = sockets or [_listen(self._settings.host, self._settings.port)]
        try:
            super().run(sockets)
        except KeyboardInterrupt:  # a second one, while it already ends
            os._exit(130)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and report the URL."""
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                self._on_listening(f"http://{shown}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal's handler. uvicorn's own would kill the process by the same signal in the end."""
        if self._deadline is not None:
            if sig == signal.SIGINT:
                # Whatever still runs in a thread would be waited for, and every task that is
                # cancelled would log where: nothing here needs an orderly end.
                os._exit(130)
            self._deadline = 0.0
            return
        self._traffic.draining = True
        self._deadline = time.monotonic() + self._settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if self._has_failed():
            self.should_exit = True
        if self._deadline is not None and not self.should_exit:
            late = time.monotonic() > self._deadline
            if late:
                self._cancel_all()
            self.should_exit = late or self._traffic.in_flight == 0
        return await super().on_tick(counter)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            problem = "another program listens there; write port=0 for a free one"
        elif error.errno == errno.EACCES:
            problem = "ports below 1024 are for root; write port=8000"
        else:
            problem = (
                f"{error.strerror}: this machine has no such address; write host=127.0.0.1, or "
                "host=0.0.0.0 for all of its addresses"
            )
        raise UserError(f"cannot listen on {host}:{port}: {problem}") from error

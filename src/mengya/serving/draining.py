"""uvicorn with an end that loses nothing: on SIGTERM or Ctrl-C new requests are turned away, running ones finish."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from mengya.serving.runtime.service import Service


class DrainingServer(uvicorn.Server):
    """Runs an app of `create_app` until it is told to stop, or its model cannot be loaded.

    The first signal drains: requests get 503, /health too, until none runs or `drain_seconds` have
    passed; those that still run then are given up. A second signal ends at once.
    """

    def __init__(
        self, app: FastAPI, host: str, port: int, on_listening: Callable[[str], None]
    ) -> None:
        """
        Args:
            on_listening: hears the server's URL once it accepts connections; the model may still load.
        """
        config = uvicorn.Config(
            app, host=host, port=port, log_config=None, access_log=False, server_header=False,
            timeout_graceful_shutdown=5,
        )  # fmt: skip
        super().__init__(config)
        self._service: Service = app.state.service
        self._deadline: float | None = None
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say where."""
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                self._on_listening(f"http://{shown}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal's handler. uvicorn's own would kill the process by the same signal in the end."""
        if self._deadline is not None:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        self._service.draining = True
        self._deadline = time.monotonic() + self._service.settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if self._service.worker.state == "failed":
            self.should_exit = True
        if self._deadline is not None and not self.should_exit:
            late = time.monotonic() > self._deadline
            if late:
                self._service.worker.cancel_all()
            self.should_exit = late or self._service.in_flight == 0
        return await super().on_tick(counter)

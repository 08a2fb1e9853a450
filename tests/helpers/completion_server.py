"""A real HTTP server of /v1/chat/completions (without streams), whose replies and troubles a test writes.

Takes a function from a request to a `Reply`; keeps every request with the time it came and its headers, and
how many were under way at once. A request that repeats an Idempotency-Key is paid for once, as by a provider
that honours it.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.helpers.running_server import running


@dataclass
class Reply:
    """What is sent back; bytes are sent as they are."""

    body: dict[str, Any] | bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    close: bool = False  # the connection ends in the middle of the body


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float

    @property
    def question(self) -> str:
        return self.body["messages"][-1]["content"]


def said(
    text: str | None, finish: str = "stop", usage: Any = (10, 5), model: str = "served"
) -> Reply:
    """A completion; `usage` as (prompt, completion), or anything else as it is."""
    if isinstance(usage, tuple):
        usage = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Reply({"id": "x", "model": model, "choices": [choice], "usage": usage})


def failed(status: int, message: str = "", code: str | None = None, **headers: str) -> Reply:
    """An error in the API's form."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply({"error": {"message": message, "type": "x", "code": code}}, status, named)


class CompletionServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Callable[[Received], Reply] = lambda request: said(f"答：{request.question}")
        self.requests: list[Received] = []
        self.paid: Counter[str] = Counter()  # questions by how often a full completion was sent
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def times_asked(self) -> Counter[str]:
        return Counter(request.question for request in self.requests)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news; a mistake of the test is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CompletionServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        """The tests speak for themselves."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        names = {name.lower(): value for name, value in self.headers.items()}
        request = Received(body, names, time.monotonic())
        with self.server.lock:
            self.server.requests.append(request)
            self.server.under_way += 1
            self.server.most_under_way = max(self.server.most_under_way, self.server.under_way)
        try:
            self.give(request, self.server.answer(request))
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def give(self, request: Received, reply: Reply) -> None:
        time.sleep(reply.delay)
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.headers.pop("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if reply.close:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(body)
        if reply.status == 200:
            with self.server.lock:
                self.server.paid[request.question] += 1


def serving() -> AbstractContextManager[CompletionServer]:
    return running(CompletionServer())

"""A real HTTP server that serves the page and speaks the API's protocol, with replies written by a test.

Takes a function from a request's body to a `Script`; keeps every request. Knows nothing of models, so a
test can make it say what no model would say on demand: hostile text, broken streams, full queues.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mengya
from tests.helpers.running_server import running

PAGE = Path(mengya.__file__).parent / "serving" / "page"
KIT = Path(mengya.__file__).parent / "web" / "page"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


@dataclass
class Script:
    """What to answer: an error, or a stream of events that a test may hold open or break off."""

    events: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    message: str = ""
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None  # waited for before the last two: the end and the usage
    cut: bool = False  # the connection ends without [DONE]


def chat(*texts: str, finish: str = "stop", usage: tuple[int, int] = (7, 5), **more: Any) -> Script:
    """A chat reply in pieces."""
    return deltas(*({"content": text} for text in texts), finish=finish, usage=usage, **more)


def deltas(
    *pieces: dict[str, Any], finish: str = "stop", usage: tuple[int, int] = (7, 5), **more: Any
) -> Script:
    """A chat reply of any deltas, then the reason it ended and the usage."""
    events = [{"choices": [{"index": 0, "delta": piece}]} for piece in pieces]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Script([*events, {"choices": [], "usage": counts}], **more)


def completion(*tokens: tuple[str, float | None, dict[str, float]], **more: Any) -> Script:
    """A completion with one event a token: its text, log-probability and the likeliest."""
    events = []
    for text, logprob, top in tokens:
        logprobs = {"tokens": [text], "token_logprobs": [logprob], "top_logprobs": [top or None]}
        shown = "" if text.startswith("bytes:") else text
        events.append({"choices": [{"index": 0, "text": shown, "logprobs": logprobs}]})
    events.append({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
    return Script(events, **more)


class ScriptedServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Callable[[dict[str, Any]], Script] = lambda _: chat("好的。")
        self.requests: list[dict[str, Any]] = []
        self.disconnected = threading.Event()
        self.key: str | None = None
        self.tokens: Callable[[dict[str, Any]], int] | None = None  # of /tokenize; None: 404
        self.models: list[dict[str, Any]] | Script = [
            {"id": "sft", "object": "model", "mengya": {"kind": "chat", "context": 512}},
            {"id": "base", "object": "model", "mengya": {"kind": "base", "context": 512}},
        ]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        """The tests speak for themselves."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            if not self.allowed():
                return
            models = self.server.models
            if isinstance(models, Script):
                self.fail(models)
            else:
                self.give(
                    json.dumps({"object": "list", "data": models}).encode(), "application/json"
                )
            return
        path = self.path.lstrip("/") or "index.html"
        root, name = (KIT, path.removeprefix("kit/")) if path.startswith("kit/") else (PAGE, path)
        file = (root / name).resolve()
        if file.is_relative_to(root.resolve()) and file.is_file():
            self.give(file.read_bytes(), TYPES[file.suffix])
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        if self.path == "/tokenize":
            count = self.server.tokens
            if count is None:
                self.fail(Script(status=404, message="no such address"))
            else:
                self.give(json.dumps({"count": count(body)}).encode(), "application/json")
            return
        self.server.requests.append(body)
        script = self.server.answer(body)
        if script.status != 200:
            self.fail(script)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for index, event in enumerate(script.events):
                if script.hold and index == len(script.events) - 2:
                    self.wait(script.hold)
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            if not script.cut:
                self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.server.disconnected.set()
        self.close_connection = True

    def wait(self, hold: threading.Event) -> None:
        """Comments keep the stream alive and show whether the reader has gone, as real servers do."""
        while not hold.wait(0.05):
            self.wfile.write(b": waiting\n\n")

    def allowed(self) -> bool:
        if self.server.key in (None, self.headers.get("Authorization", "").removeprefix("Bearer ")):
            return True
        self.fail(Script(status=401, message="missing or wrong key"))
        return False

    def fail(self, script: Script) -> None:
        named = {"code": script.code, "param": script.param}
        error = {"error": {"message": script.message, "type": "x", **named}}
        self.give(json.dumps(error).encode(), "application/json", script.status, script.headers)

    def give(
        self, body: bytes, kind: str, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def serving() -> AbstractContextManager[ScriptedServer]:
    return running(ScriptedServer())

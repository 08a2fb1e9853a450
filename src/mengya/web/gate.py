"""What stands before the handlers of an API: the key, the size of bodies, counting, the last catch.

ASGI middleware: takes and gives messages of the protocol, so that streams pass through untouched.
Logs neither headers nor bodies nor query strings.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mengya.web.disconnect import ClientGone
from mengya.web.errors import ApiError, unexpected, where

log = logging.getLogger(__name__)

API = "/v1/"
CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that disconnected
# A client that is refused while it still sends would see a broken connection instead of the reason:
# so many times the limit is read and thrown away.
DRAIN_FACTOR = 8


def _ignore(path: str, status: int, seconds: float | None) -> None:
    """No metrics."""


@dataclass
class Traffic:
    """The requests that a server is answering now, and whether it takes new ones.

    Shared by the gate (which counts), the handlers (which refuse) and the server (which drains).

    Attributes:
        on_answer: called after every request with the route's path ("other" when there is none), the
            status (499: the client disconnected) and, for requests of the API, the seconds it took.
        in_flight: requests of the API that are being answered.
        draining: the server is shutting down; handlers should refuse new work.
    """

    on_answer: Callable[[str, int, float | None], None] = _ignore
    in_flight: int = 0
    draining: bool = False


class Gate:
    """Refuses requests that may not come in, and answers for handlers that fail.

    Args:
        key: what clients must send as `Authorization: Bearer KEY`; None lets everybody in.
        guarded: paths outside of /v1/ that need the key as well.
    """

    def __init__(
        self,
        app: ASGIApp,
        traffic: Traffic,
        key: str | None,
        max_body_mb: float,
        guarded: tuple[str, ...] = (),
    ) -> None:
        self._app, self._traffic, self._guarded = app, traffic, guarded
        self._expected = None if key is None else f"Bearer {key}".encode()
        self._max_body_mb = max_body_mb
        self._max_body = int(max_body_mb * 2**20)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        is_api = scope["path"].startswith(API)
        self._traffic.in_flight += is_api
        try:
            try:
                self._check_key(scope)
                await self._app(scope, self._bounded(receive), watched)
            except ApiError as error:
                await error.response()(scope, receive, watched)
            except ClientGone:
                status = CLIENT_CLOSED_REQUEST
            except Exception as error:
                log.error("%s %s failed: %s", scope["method"], scope["path"], where(error))
                if status:
                    raise  # too late for another answer; the connection is closed
                await unexpected().response()(scope, receive, watched)
        finally:
            self._traffic.in_flight -= is_api
            seconds = time.perf_counter() - started if is_api else None
            self._traffic.on_answer(_known_path(scope), status, seconds)

    def _check_key(self, scope: Scope) -> None:
        path = scope["path"]
        # A browser asks for permission (OPTIONS) without the key.
        needs_key = (path.startswith(API) or path in self._guarded) and scope["method"] != "OPTIONS"
        if self._expected is None or not needs_key:
            return
        given = next((v for name, v in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(given, self._expected):
            raise ApiError(
                401,
                "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                code="invalid_api_key",
            )

    def _bounded(self, receive: Receive) -> Receive:
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            while size > self._max_body:
                if not message.get("more_body") or size > DRAIN_FACTOR * self._max_body:
                    raise HTTPException(413, f"the body is larger than {self._max_body_mb:g} MiB")
                message = await receive()
                size += len(message.get("body", b""))
            return message

        return bounded


def _known_path(scope: Scope) -> str:
    """The route's own path: what a client made up must not become a label."""
    app = scope.get("app")
    for route in getattr(app, "routes", []):
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            return route.path
    return "other"

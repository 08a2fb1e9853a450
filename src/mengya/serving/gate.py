"""What stands before the API's handlers: the key, the size of bodies, counting, and the last catch.

ASGI middleware: takes and gives messages of the protocol, so that streams pass through untouched.
Logs neither headers nor bodies nor query strings.
"""

from __future__ import annotations

import hmac
import logging
import time

from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mengya.serving.errors import ApiError, unexpected, where
from mengya.serving.runtime.service import ClientGone, Service

log = logging.getLogger(__name__)

# A client that is refused while it still sends would see a broken connection instead of the reason:
# so much more than allowed is read and thrown away.
_PATIENCE = 8


class Gate:
    """Refuses what may not come in, and answers for what goes wrong further in.

    Args:
        key: what clients must send as `Authorization: Bearer KEY`; None lets everybody in.
    """

    def __init__(self, app: ASGIApp, service: Service, key: str | None) -> None:
        self._app, self._service = app, service
        self._expected = None if key is None else f"Bearer {key}".encode()
        self._max_body = int(service.settings.max_body_mb * 2**20)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        api = scope["path"].startswith("/v1/")
        self._service.in_flight += api
        try:
            try:
                self._check_key(scope)
                await self._app(scope, self._bounded(receive), watched)
            except ApiError as error:
                await error.response()(scope, receive, watched)
            except ClientGone:
                self._service.metrics.disconnects.inc()
                status = 499
            except Exception as error:
                log.error("%s %s failed: %s", scope["method"], scope["path"], where(error))
                if status:
                    raise  # too late for another answer; the connection is closed
                await unexpected().response()(scope, receive, watched)
        finally:
            self._service.in_flight -= api
            path = _known_path(scope)
            self._service.metrics.requests.labels(path, str(status)).inc()
            if api:
                seconds = time.perf_counter() - started
                self._service.metrics.duration.labels(path).observe(seconds)

    def _check_key(self, scope: Scope) -> None:
        guarded = scope["path"].startswith("/v1/") or scope["path"] == "/metrics"
        # A browser asks for permission (OPTIONS) without the key.
        if self._expected is None or not guarded or scope["method"] == "OPTIONS":
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
                if not message.get("more_body") or size > _PATIENCE * self._max_body:
                    limit = f"{self._service.settings.max_body_mb:g} MiB"
                    raise HTTPException(413, f"the body is larger than {limit}")
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

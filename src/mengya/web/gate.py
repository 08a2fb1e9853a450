"""What stands before the handlers of an API: the key, the size of bodies, counting, the last catch.

ASGI middleware: takes and gives messages of the protocol, so that streams pass through untouched.
Logs neither headers nor bodies nor query strings.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mengya.web.disconnect import ClientGone
from mengya.web.errors import ApiError, ErrorForms, form_of, unexpected, where
from mengya.web.settings import WebSettings

log = logging.getLogger(__name__)

API = ("/v1/", "/api/", "/tokenize/", "/detokenize/")
"""Where addresses of programs begin, a slash added to each: they need the key and belong to no page."""
IGNORED = "X-Mengya-Ignored"
"""Header of an answer that names the fields of its request that had no effect."""
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
# Answers of the API are no page and nobody's to keep; pages bring headers of their own.
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}
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
        key: what clients must send as `Authorization: Bearer KEY` or `x-api-key: KEY`; None lets
            everybody in.
        guarded: paths outside of the API that need the key as well.
        forms: of errors, by address.
    """

    def __init__(
        self,
        app: ASGIApp,
        traffic: Traffic,
        key: str | None,
        settings: WebSettings,
        guarded: tuple[str, ...] = (),
        forms: ErrorForms | None = None,
    ) -> None:
        self._forms = forms or {}
        self._app, self._traffic, self._guarded = app, traffic, guarded
        self._key = None if key is None else key.encode()
        # Behind a key, or on an address that others reach, a page with another name gains nothing.
        is_open = key is None and settings.is_local
        self._hosts = LOCAL_HOSTS | set(settings.allowed_hosts) if is_open else None
        self._max_body_mb, self._body_seconds = settings.max_body_mb, settings.body_seconds
        self._max_body = int(settings.max_body_mb * 2**20)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}
                more = [item for item in HEADERS.items() if item[0] not in given]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        is_api = is_of_api(scope["path"])
        form = form_of(scope["path"], self._forms)
        self._traffic.in_flight += is_api
        try:
            try:
                self._check_host(scope)
                self._check_key(scope)
                await self._app(scope, self._bounded(receive), watched)
            except ApiError as error:
                await error.response(form)(scope, receive, watched)
            except ClientGone:
                status = CLIENT_CLOSED_REQUEST
            except Exception as error:
                log.error("%s %s failed: %s", scope["method"], scope["path"], where(error))
                if status:
                    raise  # too late for another answer; the connection is closed
                await unexpected().response(form)(scope, receive, watched)
        finally:
            self._traffic.in_flight -= is_api
            seconds = time.perf_counter() - started if is_api else None
            self._traffic.on_answer(_known_path(scope), status, seconds)

    def _check_key(self, scope: Scope) -> None:
        path = scope["path"]
        # A browser asks for permission (OPTIONS) without the key.
        needs_key = (is_of_api(path) or path in self._guarded) and scope["method"] != "OPTIONS"
        if self._key is None or not needs_key:
            return
        scheme, _, token = _header(scope, b"authorization").partition(b" ")
        given = [token] if scheme.lower() == b"bearer" else []
        given.append(_header(scope, b"x-api-key"))
        if not any(hmac.compare_digest(one, self._key) for one in given):
            raise ApiError(
                401,
                "the API key is missing or wrong; send it as Authorization: Bearer KEY, or as "
                "x-api-key: KEY",
                code="invalid_api_key",
            )

    def _check_host(self, scope: Scope) -> None:
        host = _header(scope, b"host").decode("latin-1").lower()
        name = re.sub(r":\d*$", "", host).removeprefix("[").removesuffix("]")
        if self._hosts is not None and name not in self._hosts:
            raise ApiError(
                403,
                f"this server does not go by the name {name[:100]!r}; write "
                f"allowed_hosts=[{name[:100]}] where it starts, or set MENGYA_API_KEY",
                code="host_not_allowed",
            )

    def _bounded(self, receive: Receive) -> Receive:
        size, complete = 0, False
        deadline = asyncio.get_running_loop().time() + self._body_seconds

        async def next_message() -> Message:
            nonlocal size, complete
            if complete:  # only the end of the connection may come
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                reason = f"the body was not complete after {self._body_seconds:g} seconds"
                raise HTTPException(408, reason, {"Connection": "close"}) from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body")
            return message

        async def bounded() -> Message:
            message = await next_message()
            while size > self._max_body:
                if complete or size > DRAIN_FACTOR * self._max_body:
                    raise HTTPException(413, f"the body is larger than {self._max_body_mb:g} MiB")
                message = await next_message()
            return message

        return bounded


def is_of_api(path: str) -> bool:
    """Whether an address is one of programs rather than of pages."""
    return f"{path}/".startswith(API)


def _header(scope: Scope, wanted: bytes) -> bytes:
    """The value of a header, empty without it."""
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def _known_path(scope: Scope) -> str:
    """The route's own path: what a client made up must not become a label."""
    app = scope.get("app")
    for route in getattr(app, "routes", []):
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            return route.path
    return "other"

"""The way of every generated answer: requests to the engine, then one body or a stream of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from mengya.serving.api.responses import PromptTokensDetails, Usage
from mengya.serving.runtime.session import Session
from mengya.web.disconnect import unless_gone
from mengya.web.events import EventStream

R = TypeVar("R")


async def respond(
    http: HttpRequest,
    session: Session,
    *,
    stream: bool,
    body: Callable[[], Coroutine[Any, Any, R]],
    events: Callable[[], AsyncGenerator[str, None]],
) -> R | EventStream:
    """Submit the session's requests and answer with `body()`, or with a stream of `events()`.

    Raises:
        ApiError: the engine refuses the requests, or gave them up before `body` was complete.
        ClientGone: the client disconnected before that.
    """
    if not stream:
        return await unless_gone(http, _collected(session, body))
    await session.submit()  # not within the stream: a refusal has a status of its own
    return EventStream(events(), session.close)


async def _collected(session: Session, body: Callable[[], Coroutine[Any, Any, R]]) -> R:
    await session.submit()
    try:
        return await body()
    finally:
        session.close()


def usage_of(session: Session) -> Usage:
    """The session's tokens in the API's words."""
    return Usage(
        prompt_tokens=session.prompt_tokens,
        completion_tokens=session.completion_tokens,
        total_tokens=session.prompt_tokens + session.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=session.cached_tokens),
    )

"""The way of every generated answer: requests to the engine, then one body or a stream of events.

Knows nothing of the forms of bodies and events: each kind of client has its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from mengya.serving.api.responses import PromptTokensDetails, Usage
from mengya.serving.runtime.choice import Choice, Piece
from mengya.serving.runtime.session import Session
from mengya.tokenizer.token_text import TokenText
from mengya.web.disconnect import unless_gone
from mengya.web.events import EventStream, StreamForm

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Run:
    """A request that is ready for the engine, and its replies as they grow.

    Attributes:
        ignored: what was sent and has no effect.
    """

    session: Session
    choices: list[Choice]
    token_text: TokenText
    ignored: list[str]

    def pieces(self) -> AsyncGenerator[tuple[int, Piece], None]:
        """The pieces of all replies as they come, each with the number of its reply."""
        return self.session.follow(self.choices)


async def respond(
    http: HttpRequest,
    session: Session,
    *,
    stream: bool,
    body: Callable[[], Coroutine[Any, Any, R]],
    events: Callable[[], AsyncGenerator[str, None]],
    form: StreamForm | None = None,
) -> R | EventStream:
    """Submit the session's requests and answer with `body()`, or with a stream of `events()`.

    Raises:
        ApiError: the engine refuses the requests, or gave them up before `body` was complete.
        ClientGone: the client disconnected before that.
    """
    if not stream:
        return await unless_gone(http, _collected(session, body))
    await session.submit()  # not within the stream: a refusal has a status of its own
    return EventStream(events(), session.close, form)


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

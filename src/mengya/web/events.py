"""A streamed answer: its events, its end marker, and its clean-up; the form is the client's."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from mengya.web.errors import ApiError, unexpected, where

log = logging.getLogger(__name__)
DONE = "data: [DONE]\n\n"


def one_line(json_text: str) -> str:
    """The same JSON for clients that end lines as Python's `splitlines` does (httpx)."""
    for end in "\x85\u2028\u2029":
        json_text = json_text.replace(end, f"\\u{ord(end):04x}")
    return json_text


def event(value: BaseModel) -> str:
    """One event; unset fields are left out, as OpenAI's server does."""
    return f"data: {one_line(value.model_dump_json(exclude_unset=True))}\n\n"


def typed_event(kind: str, value: BaseModel | dict[str, Any]) -> str:
    """One event with its kind before it."""
    data = value.model_dump() if isinstance(value, BaseModel) else value
    return f"event: {kind}\ndata: {one_line(json.dumps(data, ensure_ascii=False))}\n\n"


def _failed(error: ApiError) -> str:
    return f"data: {one_line(json.dumps(error.body(), ensure_ascii=False))}\n\n"


@dataclass(frozen=True, slots=True)
class StreamForm:
    """What else a kind of client expects of a stream.

    Attributes:
        failed: an error in place of the rest of the stream.
        end: what comes last.
    """

    failed: Callable[[ApiError], str] = _failed
    end: str = DONE
    media_type: str = "text/event-stream"


class EventStream(StreamingResponse):
    """Sends events until they end or the client disconnects.

    Args:
        events: the events as text, the end not included.
        on_close: called exactly once, when nothing more will be sent; False: the client left early.
        form: OpenAI's where nothing else is said.
    """

    def __init__(
        self,
        events: AsyncGenerator[str, None],
        on_close: Callable[[bool], None],
        form: StreamForm | None = None,
    ) -> None:
        self._events, self._on_close, self._form = events, on_close, form or StreamForm()
        self._completed = False
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(self._with_end(), media_type=self._form.media_type, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close(self._completed)
            await self._events.aclose()

    async def _with_end(self) -> AsyncGenerator[str, None]:
        """The events and the end; or, as the status is already sent, an event with the error."""
        try:
            async for text in self._events:
                yield text
            if self._form.end:
                yield self._form.end
        except ApiError as error:
            yield self._form.failed(error)
        except Exception as error:
            log.error("a stream failed: %s", where(error))
            yield self._form.failed(unexpected())
        self._completed = True

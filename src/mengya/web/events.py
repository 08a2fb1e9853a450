"""Server-sent events: a streamed answer, its end marker, and its clean-up."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Callable

from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from mengya.web.errors import ApiError, unexpected, where

log = logging.getLogger(__name__)
DONE = "data: [DONE]\n\n"


def event(value: BaseModel) -> str:
    """One event; unset fields are left out, as OpenAI's server does."""
    return f"data: {value.model_dump_json(exclude_unset=True)}\n\n"


class EventStream(StreamingResponse):
    """Sends events until they end or the client disconnects.

    Args:
        events: what `event` gives, [DONE] not included.
        on_close: called exactly once, when nothing more will be sent; False: the client left early.
    """

    def __init__(self, events: AsyncGenerator[str, None], on_close: Callable[[bool], None]) -> None:
        self._events, self._on_close = events, on_close
        self._completed = False
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(self._with_end(), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close(self._completed)
            await self._events.aclose()

    async def _with_end(self) -> AsyncGenerator[str, None]:
        """The events and [DONE]; or, as the status is already sent, an event with the error."""
        try:
            async for text in self._events:
                yield text
            yield DONE
        except ApiError as error:
            yield _failed(error)
        except Exception as error:
            log.error("a stream failed: %s", where(error))
            yield _failed(unexpected())
        self._completed = True


def _failed(error: ApiError) -> str:
    return f"data: {json.dumps(error.body(), ensure_ascii=False)}\n\n"

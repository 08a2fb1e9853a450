"""Server-sent events: the answer of a streamed request, and the end of what makes them."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator

from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from mengya.serving.errors import ApiError, unexpected, where
from mengya.serving.runtime.service import Counts, Service, lost
from mengya.serving.runtime.worker import RequestLost, Ticket

log = logging.getLogger(__name__)
DONE = "data: [DONE]\n\n"


def event(chunk: BaseModel) -> str:
    """One event; unset fields are left out, as OpenAI's server does."""
    return f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n"


class EventStream(StreamingResponse):
    """Sends events until they end or the client goes away; the ticket is closed in every case.

    Args:
        events: what `event` gives, [DONE] not included.
    """

    def __init__(
        self, events: AsyncGenerator[str, None], service: Service, ticket: Ticket, counts: Counts
    ) -> None:
        self._events, self._service, self._ticket, self._counts = events, service, ticket, counts
        self._ended = False
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(self._whole(), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ticket.close()
            self._service.count_prompt(self._counts)
            if not self._ended:
                self._service.metrics.disconnects.inc()
            await self._events.aclose()

    async def _whole(self) -> AsyncGenerator[str, None]:
        """The events and [DONE]; or, as the status is already sent, an event that tells the error."""
        try:
            async for text in self._events:
                yield text
            yield DONE
        except ApiError as error:
            yield _failed(error)
        except RequestLost:
            yield _failed(lost())
        except Exception as error:
            log.error("a stream failed: %s", where(error))
            yield _failed(unexpected())
        self._ended = True


def _failed(error: ApiError) -> str:
    return f"data: {json.dumps(error.body(), ensure_ascii=False)}\n\n"

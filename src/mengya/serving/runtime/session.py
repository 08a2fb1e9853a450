"""The engine requests of one HTTP request: submitted together, followed token by token, closed.

Turns what the engine refuses into the API's errors. Knows nothing of the wording of requests.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from mengya.errors import UserError
from mengya.generation.batch.engine import EngineFull, Request, TokenEvent
from mengya.serving.runtime.service import Service
from mengya.serving.runtime.worker import RequestLost, Ticket
from mengya.web.errors import ApiError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Reply(Protocol[T_co]):
    """One answer as it grows: events in, what became certain out."""

    @property
    def finish(self) -> str | None:
        """Why it ended, None while it runs."""
        ...

    def push(self, event: TokenEvent, /) -> T_co: ...


class Session:
    """Submits, follows and counts; every session that was submitted must be closed.

    Attributes:
        prompt_tokens, completion_tokens, cached_tokens: so far; a prompt counts once, however many
            completions it gets.
    """

    def __init__(self, service: Service, requests: Sequence[Request], prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = self.cached_tokens = 0
        self._worker, self._metrics = service.worker, service.metrics
        self._requests = requests
        self._arrived = time.perf_counter()
        self._ticket: Ticket | None = None

    async def submit(self) -> None:
        """Hand the requests to the engine: all of them, or none.

        Raises:
            ApiError: 400 for what it refuses, 429 when its waiting queue is full, 503 when it is gone.
        """
        with engine_errors():
            self._ticket = await self._worker.submit(self._requests)

    async def follow(
        self,
        replies: Sequence[Reply[T]],
        adapt: Callable[[TokenEvent], TokenEvent] = lambda event: event,
    ) -> AsyncGenerator[tuple[int, T], None]:
        """What each event makes of its reply, with the reply's index.

        A reply that has ended frees its request.

        Args:
            adapt: changes events before they are counted.

        Raises:
            ApiError: 503 when the engine gave the requests up; 400 when a grammar met its limits.
        """
        assert self._ticket is not None, "submit first"
        with engine_errors():
            async for index, event in self._ticket:
                self._check_grammar(index, event)
                event = adapt(event)
                self._count(event)
                made = replies[index].push(event)
                if replies[index].finish:
                    self._ticket.cancel(index)
                yield index, made

    def close(self, completed: bool = True) -> None:
        """Free what still runs, and count the prompt; False: the client left before the end."""
        if self._ticket is not None:
            self._ticket.close()
        self._metrics.prompt_tokens.inc(self.prompt_tokens)
        self._metrics.cached_tokens.inc(self.cached_tokens)
        if not completed:
            self._metrics.disconnects.inc()

    def _check_grammar(self, index: int, event: TokenEvent) -> None:
        grammar = self._requests[index].grammar
        if event.finish is not None and grammar is not None and grammar.failure is not None:
            raise ApiError(
                400,
                "the schema became too much to enforce in the middle of the reply, which is not "
                f"complete ({grammar.failure}); make the schema smaller",
                code="schema_limit",
            )

    def _count(self, event: TokenEvent) -> None:
        self.cached_tokens = max(self.cached_tokens, event.cached_tokens)
        if event.token is None:
            return
        if not self.completion_tokens:
            self._metrics.first_token.observe(time.perf_counter() - self._arrived)
        self.completion_tokens += 1
        self._metrics.completion_tokens.inc()


@contextmanager
def engine_errors() -> Iterator[None]:
    """Inside, what the engine refuses or gives up becomes an `ApiError`."""
    try:
        yield
    except UserError as error:
        raise ApiError(400, str(error), code="invalid_value") from error
    except EngineFull as error:
        message = "the waiting queue is full"
        raise ApiError(429, message, code="queue_full", retry_after=1) from error
    except RequestLost as error:
        message = "the request was given up by the server"
        raise ApiError(503, message, code="lost", retry_after=1) from error

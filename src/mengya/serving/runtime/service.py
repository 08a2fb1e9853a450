"""What every handler of the API works with: the worker, the settings, the counts; and one way to run requests.

Turns what the engine refuses into the API's errors. Knows nothing of the wording of requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from starlette.requests import Request as HttpRequest

from mengya.errors import UserError
from mengya.generation.batch.engine import EngineFull, Request, TokenEvent
from mengya.serving.api.responses import PromptTokensDetails, Usage
from mengya.serving.errors import ApiError
from mengya.serving.metrics import Metrics
from mengya.serving.runtime.grammar import Grammars
from mengya.serving.runtime.served import Served, ServedName
from mengya.serving.runtime.token_text import TokenText
from mengya.serving.runtime.worker import RequestLost, Ticket, Worker
from mengya.serving.settings import ServerSettings
from mengya.tokenizer.load import stop_token_ids

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Reply(Protocol[T_co]):
    """One answer as it grows: events in, what became certain out."""

    @property
    def finish(self) -> str | None:
        """Why it ended, None while it runs."""
        ...

    def push(self, event: TokenEvent, /) -> T_co: ...


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


@dataclass
class Counts:
    """Tokens of one request, and its arrival for the time to the first of them."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    arrived: float = field(default_factory=time.perf_counter)

    def usage(self) -> Usage:
        """The same as the API tells it."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            total_tokens=self.prompt_tokens + self.completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self.cached_tokens),
        )


class Service:
    """One server's state.

    Attributes:
        draining: no new requests are taken.
        in_flight: requests of the API that are being answered.
    """

    def __init__(self, worker: Worker, settings: ServerSettings) -> None:
        self.worker, self.settings = worker, settings
        self.metrics = Metrics()
        self.draining = False
        self.in_flight = 0
        self.started = int(time.time())
        self._grammars: Grammars | None = None
        self._token_text: TokenText | None = None

    def served(self) -> Served:
        """The model.

        Raises:
            ApiError: 503 while there is none, or when no new requests are taken.
        """
        if self.draining:
            raise ApiError(503, "the server is shutting down", code="draining", retry_after=10)
        if self.worker.state == "loading" or self.worker.served is None:
            raise ApiError(503, "the model is loading", code="loading", retry_after=3)
        if self.worker.state != "ready":
            raise ApiError(503, "the engine has stopped", code="stopped")
        return self.worker.served

    def named(self, model: str) -> ServedName:
        """What a request's model name means.

        Raises:
            ApiError: 404 for unknown names.
        """
        names = self.served().names
        if model not in names:
            raise ApiError(
                404,
                f"no model named {model[:100]!r}; GET /v1/models lists them",
                param="model",
                code="model_not_found",
            )
        return names[model]

    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a completion."""
        return frozenset(stop_token_ids(self.served().tokenizer))

    def token_text(self) -> TokenText:
        """Texts of single tokens."""
        if self._token_text is None:
            self._token_text = TokenText(self.served().tokenizer)
        return self._token_text

    def grammars(self) -> Grammars:
        """Maker of grammars for the model's vocabulary.

        Raises:
            ApiError: 400 when the library for them is missing.
        """
        if self._grammars is None:
            served = self.served()
            try:
                vocab_size = served.model.config.vocab_size
                self._grammars = Grammars(served.tokenizer, vocab_size, self.stop_ids())
            except UserError as error:
                raise ApiError(400, str(error), code="unsupported") from error
        return self._grammars

    def new_tokens(self, prompt_tokens: int, asked: int | None, param: str) -> int:
        """How many tokens a completion may have.

        Args:
            asked: None for as many as the context allows.

        Raises:
            ApiError: 400 when prompt and completion do not fit into the context.
        """
        context = self.served().context
        room = context - prompt_tokens
        if room < 1 or (asked or 0) > room:
            wish = f" and {asked} more were asked for ({param})" if asked and room > 0 else ""
            remedy = f"ask for {room} at most, or -1" if wish else "shorten it"
            raise ApiError(
                400,
                f"the model's context is {context} tokens; the prompt has {prompt_tokens}{wish}: "
                f"{remedy}",
                param=param if wish else None,
                code="context_length_exceeded",
            )
        return room if asked is None else asked

    async def submit(self, requests: Sequence[Request]) -> Ticket:
        """Hand requests to the engine.

        Raises:
            ApiError: 400 for what it refuses, 429 when its waiting line is full.
        """
        try:
            return await self.worker.submit(requests)
        except UserError as error:
            raise ApiError(400, str(error), code="invalid_value") from error
        except EngineFull as error:
            raise ApiError(
                429, "the waiting line is full", code="queue_full", retry_after=1
            ) from error
        except RequestLost as error:
            raise lost() from error

    async def follow(
        self,
        ticket: Ticket,
        counts: Counts,
        replies: Sequence[Reply[T]],
        events: AsyncIterable[tuple[int, TokenEvent]] | None = None,
    ) -> AsyncGenerator[tuple[int, T], None]:
        """What each event makes of its reply, with the place; a reply that has ended frees its request.

        Args:
            events: the ticket's, where they are not taken as they come.
        """
        async for place, event in ticket if events is None else events:
            self._count(counts, event)
            made = replies[place].push(event)
            if replies[place].finish:
                ticket.cancel(place)
            yield place, made

    def _count(self, counts: Counts, event: TokenEvent) -> None:
        """Take note of an event of a request."""
        counts.cached_tokens = max(counts.cached_tokens, event.cached_tokens)
        if event.token is None:
            return
        if not counts.completion_tokens:
            self.metrics.first_token.observe(time.perf_counter() - counts.arrived)
        counts.completion_tokens += 1
        self.metrics.completion_tokens.inc()

    def count_prompt(self, counts: Counts) -> None:
        """Take note of a request's prompt, once its answer is over."""
        self.metrics.prompt_tokens.inc(counts.prompt_tokens)
        self.metrics.cached_tokens.inc(counts.cached_tokens)


def lost() -> ApiError:
    """What the client hears when a request cannot be finished."""
    return ApiError(503, "the request was given up by the server", code="lost", retry_after=1)


async def prepare(work: Callable[[], T]) -> T:
    """Run `work` (templates, tokenizing, compiling a schema) beside the event loop.

    Raises:
        ApiError: 400 for what it says is wrong with the request.
    """
    try:
        return await asyncio.to_thread(work)
    except UserError as error:
        raise ApiError(400, str(error), code="invalid_value") from error
    except RecursionError as error:
        raise ApiError(400, "the request is nested too deeply") from error
    except UnicodeError as error:
        raise ApiError(400, "a text of the request is no valid Unicode") from error


async def unless_gone(http: HttpRequest, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away.

    Raises:
        ClientGone: it went.
        ApiError: 503 when the worker gave the request up.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(http))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    except RequestLost as error:
        raise lost() from error
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnect(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass

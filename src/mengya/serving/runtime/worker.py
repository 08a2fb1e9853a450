"""One thread that owns the engine; asyncio on the other side of it.

Takes engine requests, gives their token events as they come. Whatever touches the model runs in
that thread, between two steps; whatever touches a `Ticket` runs in the event loop. Knows nothing of
text or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar

from mengya.generation.batch.engine import BatchEngine, EngineStats, Request, TokenEvent
from mengya.serving.runtime.served import Served
from mengya.web.errors import where

log = logging.getLogger(__name__)
S = TypeVar("S")
T = TypeVar("T")
_MAX_FAILURES = 3  # failed steps in a row, after which engine or device counts as broken


class RequestLost(Exception):
    """The engine failed, or the server stops, before the request was done."""


class Ticket:
    """The requests of one call in the engine; iterate for (position of the request, event).

    Ends after the last event of every request. `close` frees what is left, whenever it is called.
    """

    def __init__(self, worker: Worker, count: int) -> None:
        self._worker = worker
        self._events: asyncio.Queue[tuple[int, TokenEvent] | None] = asyncio.Queue()
        self._open = set(range(count))
        self.ids: list[int] = []

    async def __aiter__(self) -> AsyncIterator[tuple[int, TokenEvent]]:
        while self._open or not self._events.empty():
            item = await self._events.get()
            if item is None:
                raise RequestLost
            position, event = item
            if position not in self._open:
                continue  # was on its way when the request was cancelled
            if event.finish is not None:
                self._open.discard(position)
            yield position, event

    def cancel(self, position: int) -> None:
        """Free one request; nothing more comes of it."""
        if position in self._open:
            self._open.discard(position)
            self._worker.cancel([self.ids[position]])

    def close(self) -> None:
        """Free every request that is not done."""
        if self._open:
            self._worker.cancel([self.ids[position] for position in self._open])
        self._open.clear()
        self._worker.forget(self.ids)

    def put(self, position: int, event: TokenEvent) -> None:
        self._events.put_nowait((position, event))

    def fail(self) -> None:
        """Let whoever iterates know that nothing more will come."""
        self._events.put_nowait(None)


class Worker:
    """Loads the model in its thread and runs the engine there while it has work.

    Attributes:
        state: loading until the model is there; failed when it could not be loaded
            or the engine broke.
        served: what was loaded, None before.
        error: why loading failed, or the engine broke.
        stats: the engine's counts after its last step, None while loading.
    """

    def __init__(self, load: Callable[[], Served]) -> None:
        self.state: Literal["loading", "ready", "failed", "stopped"] = "loading"
        self.served: Served | None = None
        self.error: BaseException | None = None
        self.stats: EngineStats | None = None
        self._load = load
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._calls: deque[Callable[[], None]] = deque()  # of the thread alone
        self._tickets: dict[int, tuple[Ticket, int]] = {}
        self._active: set[int] = set()  # requests in the engine, as the thread knows them
        self._pending: set[asyncio.Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="mengya-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loaded = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether nobody waits for a reply or an answer, and no request is kept."""
        return not (self._tickets or self._active or self._pending)

    # What the event loop calls.

    def start(self) -> None:
        """Begin to load; call from the event loop that will submit."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def loaded(self) -> None:
        """Return when loading is over: `served` holds the model, or `error` says why there is none."""
        await self._loaded.wait()

    def stop(self) -> None:
        """End the thread after its present step; blocks. A load under way is not waited for."""
        self._commands.put(None)
        if self.state != "loading":
            self._thread.join()

    async def submit(self, requests: Sequence[Request]) -> Ticket:
        """Queue all requests, or none.

        Raises:
            UserError: the engine refuses one.
            EngineFull: its waiting queue is full.
            RequestLost: the engine is gone.
        """
        ticket = Ticket(self, len(requests))

        def register(ids: list[int]) -> Ticket:
            ticket.ids = ids
            self._tickets.update({id_: (ticket, place) for place, id_ in enumerate(ids)})
            return ticket

        return await self._command(lambda: self._add(requests), register, Ticket.close)

    async def call(self, work: Callable[[], T]) -> T:
        """Run `work` in the engine's thread; between two steps one call runs, first come first served.

        Long work is many calls, one after the other: streams continue between them, and other callers have
        their turn.
        """
        return await self._command(work, lambda result: result, lambda result: None, in_turn=True)

    def cancel(self, ids: Sequence[int]) -> None:
        """Free requests before the engine's next step; unknown ids are ignored."""
        self.forget(ids)
        self._commands.put(lambda: self._cancel(ids))

    def forget(self, ids: Sequence[int]) -> None:
        """Drop the events that requests still have coming."""
        for request_id in ids:
            self._tickets.pop(request_id, None)

    def cancel_all(self) -> None:
        """Free every request; who waits for one gets `RequestLost`."""
        tickets = {id(ticket): ticket for ticket, _ in self._tickets.values()}
        self.cancel(list(self._tickets))
        for ticket in tickets.values():
            ticket.fail()

    async def _command(
        self,
        work: Callable[[], S],
        arrive: Callable[[S], T],
        discard: Callable[[T], None],
        in_turn: bool = False,
    ) -> T:
        """`arrive(work())`: work in the thread, arrive in the loop, before any later event.

        When the caller is cancelled before it runs, it does not; when meanwhile, the result is handed to
        `discard`.

        Args:
            in_turn: one of these runs between two steps; of all others whatever has come.
        """
        if self.state != "ready" or self._loop is None:
            raise RequestLost
        loop, future = self._loop, self._loop.create_future()

        def finish(result: S | None, error: Exception | None) -> None:
            self._pending.discard(future)
            if error is not None:
                if not future.done():
                    future.set_exception(error)
                return
            arrived = arrive(result)  # type: ignore[arg-type]
            if future.done():  # cancelled, or lost
                discard(arrived)
            else:
                future.set_result(arrived)

        def run() -> None:
            if future.done():
                loop.call_soon_threadsafe(self._pending.discard, future)
                return
            try:
                result, error = work(), None
            except Exception as raised:  # whoever asked gets it
                result, error = None, raised
            loop.call_soon_threadsafe(finish, result, error)

        self._pending.add(future)
        self._commands.put((lambda: self._calls.append(run)) if in_turn else run)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                discard(future.result())
            raise

    def _deliver(self, events: list[TokenEvent], stats: EngineStats) -> None:
        self.stats = stats
        for event in events:
            ticket, position = self._tickets.get(event.request_id, (None, 0))
            if ticket is not None:
                ticket.put(position, event)
                if event.finish is not None:
                    del self._tickets[event.request_id]

    def _lose_all(self) -> None:
        self.cancel_all()
        for future in self._pending:
            if not future.done():
                future.set_exception(RequestLost())
        self._pending.clear()

    # What the thread runs, once the model is loaded.

    @property
    def _engine(self) -> BatchEngine:
        assert self.served is not None
        return self.served.engine

    def _run(self) -> None:
        assert self._loop is not None
        try:
            self.served = self._load()
            self.stats = self._engine.stats
            self.state = "ready"
            self._notify(self._loaded.set)
            self._work(self._loop)
            self.state = "stopped"
        except BaseException as error:  # raised by whoever runs the server
            self.error, self.state = error, "failed"
        self._notify(self._loaded.set)
        self._notify(self._lose_all)

    def _notify(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: it did not wait for a load to end
            self._loop.call_soon_threadsafe(call)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        failures = 0
        while self._handle_commands():
            if self._calls:
                self._calls.popleft()()
            if not self._engine.has_work:
                continue
            try:
                events = self._engine.step()
            except Exception as error:
                # Which request caused it is unknown: all that are in the engine are given up.
                log.error("a step of the engine failed: %s", where(error))
                failures += 1
                if failures == _MAX_FAILURES:
                    raise
                self._cancel(list(self._active))
                loop.call_soon_threadsafe(self.cancel_all)
                continue
            failures = 0
            self._active -= {event.request_id for event in events if event.finish is not None}
            loop.call_soon_threadsafe(self._deliver, events, self._engine.stats)

    def _handle_commands(self) -> bool:
        """Run the pending commands; without work, wait for one. False: stop."""
        while not (self._engine.has_work or self._calls) or not self._commands.empty():
            command = self._commands.get()
            if command is None:
                return False
            command()
        return True

    def _add(self, requests: Sequence[Request]) -> list[int]:
        ids = self._engine.add_all(requests)
        self._active.update(ids)
        return ids

    def _cancel(self, ids: Sequence[int]) -> None:
        for request_id in ids:
            self._engine.cancel(request_id)
            self._active.discard(request_id)
        self.stats = self._engine.stats

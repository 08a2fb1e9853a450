"""Prompts -> completions in the order in which they finish, through one endpoint.

Many requests are under way at once, within the rate limits; what fails for a passing reason is repeated; each
reply is in the ledger before it is given; the cap is never passed. Stopped by Ctrl-C it takes in the replies
that are under way, since they are paid for; a second Ctrl-C does not wait.
"""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType

from mengya.endpoint.backoff import backoff_seconds
from mengya.endpoint.budget import Budget
from mengya.endpoint.config import EndpointConfig
from mengya.endpoint.key import read_key
from mengya.endpoint.ledger import Ledger
from mengya.endpoint.messages import Completion, Prompt, Usage, request_key
from mengya.endpoint.protocol import Failure, ask, most_usage, open_client, request_fields
from mengya.endpoint.rate_limit import TokenBucket
from mengya.errors import UserError

_HOPELESS = 10  # requests in a row that were rejected or given up, none of them answered: stop
_LOOK_SECONDS = 0.2  # how often a wait looks for Ctrl-C
_Task = asyncio.Task[Completion | None]


@dataclass
class Traffic:
    """What happened: requests by how they ended, repetitions by reason."""

    replies: int = 0
    from_ledger: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    given_up: Counter[str] = field(default_factory=Counter)
    wrong_usage: int = 0


class Endpoint:
    """An endpoint with its ledger; a context manager.

    Args:
        say: takes a line for whoever watches.

    Attributes:
        traffic, budget: what happened, and what it cost; with all that the ledger has of earlier runs.
        stopped_at_cap: whether `complete` ended early since the next request might have passed the cap.

    Raises:
        UserError: no key, no model, the `openai` library is missing, a damaged ledger.
    """

    def __init__(
        self,
        config: EndpointConfig,
        ledger: Path,
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.config = config
        self._say = say
        self._key = read_key(config)
        self._client = open_client(config, self._key)
        self.ledger = Ledger(ledger)
        self.traffic, self.budget = Traffic(), Budget(config)
        self.budget.spent, self.budget.uncertain = self.ledger.spent, self.ledger.uncertain
        self.stopped_at_cap = False
        self._fields = request_fields(config)
        self._runner = asyncio.Runner()
        self._rng = random.Random()
        now = time.monotonic()
        self._requests = _bucket(config.requests_per_minute, now)
        self._tokens = _bucket(config.tokens_per_minute, now)
        self._not_before = 0.0  # all wait until then: the endpoint asked for it
        self._in_vain = 0
        self._stops = 0  # 1: send nothing more, 2: do not wait either

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(Exception):  # the connections; what is of worth is in the ledger
            self._runner.run(self._client.close())
        self._runner.close()
        self.ledger.__exit__(kind, error, trace)

    def key_of(self, prompt: Prompt) -> str:
        """The name of the request in the ledger."""
        return request_key(prompt, self.config.model, self._fields)

    def paid(self, prompt: Prompt) -> Completion | None:
        """The reply that the ledger has already."""
        return self.ledger.reply(self.key_of(prompt))

    def complete(self, prompts: Iterable[Prompt]) -> Iterator[Completion]:
        """Completions in the order in which they finish; those that the ledger has come at once.

        Prompts are taken as there is room for them. One that fails too often is left out and counted in
        `traffic.given_up`; the next run asks it again. A prompt that comes twice is asked once.

        Raises:
            UserError: the endpoint will not answer: wrong key, no such model, nothing succeeds.
            KeyboardInterrupt: after the replies under way are in the ledger.
        """
        waiting = iter(prompts)
        under_way: dict[_Task, str] = {}
        self._stops = 0
        with _counted_interrupts(self._interrupt):
            try:
                yield from self._asked(waiting, under_way)
                if self._stops:
                    raise KeyboardInterrupt
                if self.stopped_at_cap:
                    yield from filter(None, map(self._known, waiting))
            finally:
                self._take_in(under_way)

    def _asked(
        self, waiting: Iterator[Prompt], under_way: dict[_Task, str]
    ) -> Iterator[Completion]:
        """Keep as many requests under way as there may be, until there are no more prompts."""
        held: Prompt | None = None  # until the requests under way have shown what they cost
        while True:
            while len(under_way) < self.config.concurrency and self._may_start:
                prompt, held = held or next(waiting, None), None
                if prompt is None:
                    break
                if (known := self._known(prompt)) is not None:
                    yield known
                elif not self._start(prompt, under_way):
                    self.stopped_at_cap = not under_way
                    held = prompt
                    break
            if not under_way or self._stops > 1:
                return
            for task in self._runner.run(_finished(under_way)):
                del under_way[task]
                if (completion := task.result()) is not None:
                    yield completion

    @property
    def _may_start(self) -> bool:
        return not self._stops and not self.stopped_at_cap

    def _interrupt(self) -> None:
        self._stops += 1
        if self._stops == 1:
            self._say(
                "waiting for the replies under way, which are paid for; Ctrl-C again leaves at once"
            )

    def _known(self, prompt: Prompt) -> Completion | None:
        known = self.paid(prompt)
        self.traffic.from_ledger += known is not None
        return known

    def _start(self, prompt: Prompt, under_way: dict[_Task, str]) -> bool:
        """Put a request under way; false when the cap might be passed with it."""
        key, most = self.key_of(prompt), most_usage(self.config, prompt)
        if key in under_way.values():
            return True
        if not self.budget.reserve(most):
            return False
        under_way[self._runner.get_loop().create_task(self._answered(prompt, key, most))] = key
        return True

    def _take_in(self, under_way: dict[_Task, str]) -> None:
        """At the end, however it comes: put what is paid for into the ledger, and send nothing more."""
        self._stops = max(self._stops, 1)
        while under_way and self._stops < 2:
            for task in self._runner.run(_finished(under_way)):
                del under_way[task]
                task.exception()  # the first error is raised already
        for task in under_way:
            task.cancel()

    async def _answered(self, prompt: Prompt, key: str, most: Usage) -> Completion | None:
        """Ask until there is a completion; None after too many failures, or when all is to stop.

        Args:
            most: what the request can cost, reserved for the first time that it is sent.
        """
        attempt = 0
        while True:
            if not await self._may_send(most):
                self.budget.cancel(most)
                return None
            outcome = await self._ask(prompt, key, most)
            if isinstance(outcome, Completion):
                self._note(key, outcome, most)
                return outcome
            self._note_failure(key, outcome, most)
            if attempt == self.config.max_retries:
                self._give_up(outcome)
                return None
            wait = max(backoff_seconds(attempt, self._rng), outcome.wait or 0.0)
            if outcome.wait is not None:  # not this request alone is too fast
                self._not_before = max(self._not_before, time.monotonic() + outcome.wait)
            if not await self._slept(wait):
                return None
            if not self.budget.reserve(most):
                self.stopped_at_cap = True
                return None
            self.traffic.retries[outcome.reason] += 1
            attempt += 1

    async def _ask(self, prompt: Prompt, key: str, most: Usage) -> Completion | Failure:
        self.ledger.sent(key, most)
        try:
            return await ask(self._client, self.config, prompt, key, self._key)
        except UserError:
            self.ledger.over(key, charged=False)
            self.budget.cancel(most)
            raise
        except asyncio.CancelledError:
            self.ledger.over(key, charged=True)
            self.budget.lose(most)
            raise

    def _note(self, key: str, completion: Completion, most: Usage) -> None:
        self.ledger.replied(key, completion)
        self.budget.settle(most, completion.usage)
        if self._tokens is not None:
            self._tokens.give_back(_likely_tokens(most) - completion.usage.total, time.monotonic())
        self.traffic.replies += 1
        self.traffic.wrong_usage += completion.usage_is_ours
        if completion.problem is not None:
            self.traffic.problems[completion.problem] += 1
        if completion.problem == "rejected":
            self._count_in_vain(completion.detail, _HOPELESS)
        else:
            self._in_vain = -1 << 60  # it answers

    def _note_failure(self, key: str, failure: Failure, most: Usage) -> None:
        self.ledger.over(key, failure.charged)
        (self.budget.lose if failure.charged else self.budget.cancel)(most)
        if failure.wait is not None and failure.wait > self.config.max_wait_seconds:
            raise UserError(
                f"{self.config.base_url} asks to wait {failure.wait:,.0f} s ({failure.detail}); the replies "
                "so far are kept: type the same again later, or write endpoint.max_wait_seconds="
                f"{failure.wait:.0f} to wait"
            )

    def _give_up(self, failure: Failure) -> None:
        self.traffic.given_up[failure.reason] += 1
        most = min(_HOPELESS, self.config.concurrency)  # each was repeated for a while
        self._count_in_vain(f"{failure.reason}: {failure.detail}", most)

    def _count_in_vain(self, detail: str, most: int) -> None:
        """Stop when the first requests of a run all fail: it is not one of them, but the set-up."""
        self._in_vain += 1
        if self._in_vain >= most:
            raise UserError(
                f"{self.config.base_url} answered none of the first {self._in_vain} requests ({detail}); "
                "replies so far are kept: type the same again when it does"
            )

    async def _may_send(self, most: Usage) -> bool:
        """Wait for the rate limits and for what the endpoint asked for; false when all is to stop."""
        now = time.monotonic()
        waits = [0.0, self._not_before - now]
        if self._requests is not None:
            waits.append(self._requests.take(1, now))
        if self._tokens is not None:
            waits.append(self._tokens.take(_likely_tokens(most), now))
        if not await self._slept(max(waits)):
            return False
        while (left := self._not_before - time.monotonic()) > 0:  # asked for meanwhile
            if not await self._slept(left):
                return False
        return True

    async def _slept(self, seconds: float) -> bool:
        """Wait; false when all is to stop."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stops:
            await asyncio.sleep(min(left, _LOOK_SECONDS))
        return not self._stops


def _likely_tokens(most: Usage) -> int:
    """What a request counts for in the rate limit until it is known: three bytes a token, a full reply."""
    return most.input // 3 + most.output


def _bucket(per_minute: float | None, now: float) -> TokenBucket | None:
    return TokenBucket(per_minute, now) if per_minute is not None else None


async def _finished(tasks: Iterable[_Task]) -> set[_Task]:
    """Those that end within a moment; maybe none."""
    done, _ = await asyncio.wait(tasks, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    return done


@contextmanager
def _counted_interrupts(interrupt: Callable[[], None]) -> Iterator[None]:
    """Inside the block Ctrl-C calls `interrupt`; in the main thread, which alone receives it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def received(number: int, frame: FrameType | None) -> None:
        interrupt()

    before = signal.signal(signal.SIGINT, received)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

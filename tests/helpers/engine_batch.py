"""Running requests through a BatchEngine to their ends, for several test files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mengya.generation.batch.engine import BatchEngine, Request, TokenEvent


@dataclass
class Outcome:
    """What one request got."""

    tokens: list[int] = field(default_factory=list)
    events: list[TokenEvent] = field(default_factory=list)

    @property
    def finish(self) -> str | None:
        return self.events[-1].finish


def run_all(engine: BatchEngine, requests: Sequence[Request], per_step: int = 0) -> list[Outcome]:
    """Outcomes in the order of the requests; `per_step` of them arrive with each step, 0: all at once."""
    outcomes: dict[int, Outcome] = {}
    left = list(requests)
    while left or engine.has_work:
        for request in left[: per_step or len(left)]:
            outcomes[engine.add(request)] = Outcome()
        del left[: per_step or len(left)]
        for event in engine.step():
            outcome = outcomes[event.request_id]
            assert not outcome.events or outcome.finish is None, "an event after the last one"
            outcome.events.append(event)
            if event.token is not None:
                outcome.tokens.append(event.token)
    assert all(outcome.finish for outcome in outcomes.values())
    stats = engine.stats
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.free_pages == stats.total_pages, "a page leaked"
    return list(outcomes.values())

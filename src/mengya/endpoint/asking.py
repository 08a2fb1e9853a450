"""All prompts of a step through the endpoint, with a progress bar of what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from mengya.endpoint.client import Endpoint
from mengya.endpoint.messages import Prompt


class Ask(Protocol):
    """Asks all prompts of a step, which are given each time that the function is called; whether all have a
    reply then."""

    def __call__(self, step: str, prompts: Callable[[], Iterable[Prompt]]) -> bool: ...


def asker(endpoint: Endpoint, console: Console) -> Ask:
    """Asks through this endpoint; after its cap is reached, or a request was given up, it asks no more."""

    def ask(step: str, prompts: Callable[[], Iterable[Prompt]]) -> bool:
        if is_incomplete(endpoint):
            return all(endpoint.paid(prompt) is not None for prompt in prompts())
        total = sum(1 for _ in prompts())
        progress = Progress(
            TextColumn(step),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[cost]}"),
            console=console,
        )
        with progress:
            bar = progress.add_task("", total=total, cost=cost_text(endpoint))
            for _ in endpoint.complete(prompts()):
                progress.update(bar, advance=1, cost=cost_text(endpoint))
        return not is_incomplete(endpoint)

    return ask


def is_incomplete(endpoint: Endpoint) -> bool:
    """Whether some request of this run has no reply."""
    return endpoint.stopped_at_cap or bool(endpoint.traffic.given_up)


def cost_text(endpoint: Endpoint) -> str:
    """Tokens and money of this run and of those before it."""
    budget, most = endpoint.budget, endpoint.config.max_cost
    text = f"{budget.spent.total:,} tokens"
    if budget.has_prices:
        text += f", cost {budget.cost(budget.spent):,.4f}"
    return text + (f" of {most:,.4g}" if most is not None else "")

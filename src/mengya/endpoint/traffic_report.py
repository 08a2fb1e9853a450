"""What the requests of a run came to, for the report and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mengya.endpoint.asking import cost_text
from mengya.endpoint.client import Endpoint


def traffic_facts(endpoint: Endpoint) -> dict[str, Any]:
    """Requests, tokens and money of this run and, where it says so, of all runs together."""
    traffic, budget = endpoint.traffic, endpoint.budget
    facts: dict[str, Any] = {
        "replies_in_all_runs": len(endpoint.ledger),
        "input_tokens": budget.spent.input,
        "output_tokens": budget.spent.output,
        "lost_requests_at_most": {
            "input_tokens": budget.uncertain.input,
            "output_tokens": budget.uncertain.output,
        },
        "this_run": {
            "new_replies": traffic.replies,
            "problems": dict(traffic.problems),
            "retries": dict(traffic.retries),
            "given_up": dict(traffic.given_up),
            "wrong_usage": traffic.wrong_usage,
        },
        "stopped_at_cap": endpoint.stopped_at_cap,
    }
    if budget.has_prices:
        facts["cost"] = round(budget.cost(budget.spent), 6)
        facts["cost_of_lost_at_most"] = round(budget.cost(budget.uncertain), 6)
    return facts


def traffic_lines(endpoint: Endpoint) -> list[str]:
    """For the terminal: what came, what was repeated, what it cost and may have cost as well."""
    traffic, budget = endpoint.traffic, endpoint.budget
    lines = [
        f"{traffic.replies:,} new replies, {len(endpoint.ledger):,} in all: {cost_text(endpoint)}"
    ]
    for name, counted in (
        ("not as asked", traffic.problems),
        ("repeated", traffic.retries),
        ("given up", traffic.given_up),
    ):
        if counted:
            lines.append(f"{name}: {_listed(counted)}")
    if traffic.wrong_usage:
        lines.append(
            f"{traffic.wrong_usage:,} replies without a possible count of tokens: counted at the most"
        )
    if budget.uncertain.total:
        money = f", cost {budget.cost(budget.uncertain):,.4f}" if budget.has_prices else ""
        lines.append(
            f"requests whose reply was lost may have been charged as well: at most "
            f"{budget.uncertain.total:,} tokens{money}"
        )
    return lines


def _listed(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counted.items()))

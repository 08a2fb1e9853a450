"""The cap is never passed, whatever is under way, lost or lied about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mengya.endpoint.client import Endpoint
from mengya.endpoint.config import EndpointConfig
from mengya.endpoint.messages import Prompt, Usage, most_input_tokens
from mengya.errors import UserError
from tests.helpers.completion_server import CompletionServer, Reply, said, serving

QUESTIONS = [f"{number:03}" for number in range(14)]
MOST_INPUT = most_input_tokens([{"role": "user", "content": "000"}])


@pytest.fixture
def server() -> Iterator[CompletionServer]:
    with serving() as running:
        running.answer = lambda r: Reply(said("好" * 20, usage=(30, 60)).body, delay=0.01)
        yield running


def settings(server: CompletionServer, **changes: Any) -> EndpointConfig:
    prices = {"input_price": 1e6, "output_price": 2e6}  # 1 and 2 a token
    sampling = {"max_tokens": 100}
    return EndpointConfig.model_validate(
        {"base_url": server.base_url, "model": "m", "sampling": sampling, **prices, **changes}
    )


def run(config: EndpointConfig, ledger: Path) -> Endpoint:
    with Endpoint(config, ledger) as endpoint:
        for _ in endpoint.complete(Prompt(q, [{"role": "user", "content": q}]) for q in QUESTIONS):
            worst = endpoint.budget.spent + endpoint.budget.pending + endpoint.budget.uncertain
            assert endpoint.budget.cost(worst) <= (config.max_cost or float("inf"))
    return endpoint


def test_the_run_stops_before_the_cap_is_passed_and_continues_with_a_higher_one(
    server: CompletionServer, tmp_path: Path
) -> None:
    each, most = 30 + 2 * 60, MOST_INPUT + 2 * 100
    endpoint = run(settings(server, max_cost=1600), tmp_path / "l")
    spent = endpoint.budget.cost(endpoint.budget.spent)
    assert endpoint.stopped_at_cap and spent == each * len(server.requests)
    assert 1600 - most < spent <= 1600  # one more might have passed it
    before = len(server.requests)
    endpoint = run(settings(server, max_cost=1600), tmp_path / "l")
    assert endpoint.stopped_at_cap and len(server.requests) == before
    endpoint = run(settings(server, max_cost=10**6), tmp_path / "l")
    assert not endpoint.stopped_at_cap and len(server.requests) == len(QUESTIONS)


def test_tokens_have_a_cap_as_well(server: CompletionServer, tmp_path: Path) -> None:
    endpoint = run(settings(server, max_total_tokens=1000), tmp_path / "l")
    assert endpoint.stopped_at_cap and endpoint.budget.spent.total <= 1000
    assert len(server.requests) == (1000 - MOST_INPUT - 100) // 90 + 1


def test_a_lie_about_tokens_does_not_pass_the_cap(server: CompletionServer, tmp_path: Path) -> None:
    server.answer = lambda r: said("好" * 20, usage=(1, 0))
    endpoint = run(settings(server, max_cost=1600), tmp_path / "l")
    assert (
        endpoint.stopped_at_cap
        and endpoint.traffic.wrong_usage == len(server.requests) <= 1600 // 60
    )


def test_replies_that_are_lost_count_at_their_most(
    server: CompletionServer, tmp_path: Path
) -> None:
    server.answer = lambda r: Reply(b"nonsense")
    with pytest.raises(UserError):
        run(settings(server, max_cost=2000, max_retries=0, concurrency=2), tmp_path / "l")
    paid = len(server.requests) * (MOST_INPUT + 200)
    assert paid <= 2000
    with Endpoint(settings(server, max_cost=2000), tmp_path / "l") as endpoint:
        assert endpoint.budget.cost(endpoint.budget.uncertain) == paid
        assert not endpoint.budget.fits(Usage(10**4, 0))


def test_a_cap_needs_prices() -> None:
    with pytest.raises(ValueError, match="input_price=NUMBER output_price=NUMBER"):
        EndpointConfig(model="m", max_cost=1)

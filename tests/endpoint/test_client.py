"""The client against a real server that fails, stalls, cuts connections, talks nonsense and lies."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mengya.endpoint import backoff
from mengya.endpoint.client import Endpoint
from mengya.endpoint.config import EndpointConfig
from mengya.endpoint.messages import Completion, Prompt, most_input_tokens
from mengya.errors import UserError
from tests.helpers.completion_server import (
    CompletionServer,
    Received,
    Reply,
    failed,
    said,
    serving,
)
from tests.helpers.waiting import wait_until

KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def server() -> Iterator[CompletionServer]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of tens of milliseconds in the place of seconds."""
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.02)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def config(server: CompletionServer, **changes: Any) -> EndpointConfig:
    return EndpointConfig.model_validate({"base_url": server.base_url, "model": "m", **changes})


def prompts(*questions: str) -> list[Prompt]:
    return [Prompt(q, [{"role": "user", "content": q}]) for q in questions]


def complete(
    settings: EndpointConfig, ledger: Path, *questions: str
) -> tuple[dict[str, Completion], Endpoint]:
    with Endpoint(settings, ledger) as endpoint:
        found = {one.id: one for one in endpoint.complete(prompts(*questions))}
    return found, endpoint


def planted(server: CompletionServer) -> None:
    """What goes wrong is the question; the first time only, or each time."""

    def answer(request: Received) -> Reply:
        first = server.times_asked()[request.question] == 1
        once = {
            "fails": failed(500, "boom"),
            "waits": failed(429, "slow down", retry_after="0.6"),
            "stalls": Reply(said("late").body, delay=1.0),
            "breaks": Reply(said("x" * 4000).body, close=True),
            "html": Reply(b"<html>gateway</html>", headers={"Content-Type": "text/html"}),
            "no_choices": Reply({"choices": []}),
            "number": Reply(b"42"),
            "binary": Reply(b"\xff\xfe\x00"),
            "deep": Reply(b"[" * 5000),
        }
        always = {
            "cut": said("开头", finish="length"),
            "filtered": said(None, finish="content_filter"),
            "empty": said("  "),
            "too_long": failed(400, "context length exceeded"),
            "policy": failed(400, "no", code="content_filter"),
            "no_usage": said("好", usage=None),
            "minus": said("好", usage=(-3, -4)),
            "text": said("好", usage={"prompt_tokens": "9", "completion_tokens": []}),
            "huge": said("好", usage=(10**9, 10**9)),
            "zero": said("好", usage=(5, 0)),
        }
        if first and request.question in once:
            return once[request.question]
        return always.get(request.question, said(f"答{request.question}"))

    server.answer = answer


def test_what_fails_for_a_passing_reason_is_repeated_and_counted(
    server: CompletionServer, tmp_path: Path
) -> None:
    planted(server)
    trouble = [
        "fails",
        "waits",
        "stalls",
        "breaks",
        "html",
        "no_choices",
        "number",
        "binary",
        "deep",
    ]
    found, endpoint = complete(
        config(server, timeout_seconds=0.7, concurrency=16), tmp_path / "l", *trouble, "plain"
    )
    assert {name: one.text for name, one in found.items()} == {
        name: f"答{name}" for name in [*trouble, "plain"]
    }
    retries = endpoint.traffic.retries
    assert retries == {
        "server_error": 1, "busy": 1, "timeout": 1, "connection_lost": 1, "not_json": 5
    }  # fmt: skip
    # What may have been charged counts at its most; a refusal counts nothing.
    most = most_input_tokens(prompts("breaks")[0].messages)
    assert endpoint.budget.uncertain.output == 7 * 1024 and endpoint.budget.uncertain.input >= most
    assert endpoint.budget.pending.total == 0 and endpoint.traffic.replies == 10


def test_all_wait_as_long_as_one_was_asked_to(server: CompletionServer, tmp_path: Path) -> None:
    planted(server)
    complete(config(server, concurrency=1), tmp_path / "l", "waits", "b", "c")
    times = {r.question: r.at for r in server.requests}  # the last time of each
    first = server.requests[0]
    assert times["waits"] - first.at >= 0.59 and times["b"] - first.at >= 0.59


def test_replies_that_are_not_as_asked_are_given_with_the_reason(
    server: CompletionServer, tmp_path: Path
) -> None:
    planted(server)
    found, endpoint = complete(
        config(server), tmp_path / "l", "cut", "filtered", "empty", "too_long", "policy", "plain"
    )
    assert {name: one.problem for name, one in found.items()} == {
        "cut": "cut", "filtered": "refused", "empty": "empty", "too_long": "rejected",
        "policy": "refused", "plain": None,
    }  # fmt: skip
    assert found["cut"].text == "开头" and "context length" in found["too_long"].detail
    assert endpoint.traffic.problems == {"cut": 1, "refused": 2, "empty": 1, "rejected": 1}


def test_counts_of_tokens_that_cannot_be_are_replaced_by_the_most(
    server: CompletionServer, tmp_path: Path
) -> None:
    planted(server)
    lies = ["no_usage", "minus", "text", "huge", "zero"]
    found, endpoint = complete(config(server), tmp_path / "l", *lies, "honest")
    assert endpoint.traffic.wrong_usage == 5
    assert all(found[name].usage_is_ours and found[name].usage.output == 4 for name in lies)
    assert not found["honest"].usage_is_ours and found["honest"].usage.output == 5


def test_a_request_is_given_up_after_its_repetitions_and_asked_again_by_the_next_run(
    server: CompletionServer, tmp_path: Path
) -> None:
    server.answer = lambda r: failed(503, "busy") if r.question == "bad" else said("好")
    settings = config(server, max_retries=2)
    found, endpoint = complete(settings, tmp_path / "l", "a", "bad", "b")
    assert set(found) == {"a", "b"} and endpoint.traffic.given_up == {"busy": 1}
    assert server.times_asked() == {"a": 1, "b": 1, "bad": 3}
    server.answer = lambda r: said("好")
    found, endpoint = complete(settings, tmp_path / "l", "a", "bad", "b")
    assert set(found) == {"a", "bad", "b"} and endpoint.traffic.from_ledger == 2
    assert server.times_asked()["a"] == 1


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (failed(401, f"wrong key {KEY}"), "the key is wrong"),
        (failed(404, "no such model"), "has no model 'm'"),
        (failed(429, "pay first", code="insufficient_quota"), "no money is left"),
        (failed(429, "tomorrow", retry_after="86400"), "endpoint.max_wait_seconds=86400"),
        (failed(400, "unknown field"), "answered none of the first"),
    ],
)
def test_what_no_repetition_helps_stops_with_the_reason(
    server: CompletionServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reply: Reply,
    part: str,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.answer = lambda r: Reply(reply.body, reply.status, dict(reply.headers))
    with pytest.raises(UserError) as caught:
        complete(config(server), tmp_path / "l", *map(str, range(30)))
    assert part in str(caught.value) and KEY not in str(caught.value)
    assert len(server.requests) < 10 + 2 * 8  # ten in vain, and what was under way
    assert KEY not in (tmp_path / "l").read_text()


def test_one_request_that_is_refused_stops_nothing(
    server: CompletionServer, tmp_path: Path
) -> None:
    planted(server)
    found, _ = complete(config(server, concurrency=1), tmp_path / "l", "too_long", "plain")
    assert found["too_long"].problem == "rejected" and found["plain"].problem is None


def test_an_endpoint_that_is_not_there_stops_the_run(tmp_path: Path) -> None:
    settings = EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m", max_retries=1)
    with pytest.raises(UserError, match="no_connection"):
        complete(settings, tmp_path / "l", *map(str, range(30)))


def test_no_more_requests_are_under_way_than_may_be(
    server: CompletionServer, tmp_path: Path
) -> None:
    server.answer = lambda r: Reply(said("好").body, delay=0.03)
    complete(config(server, concurrency=5), tmp_path / "l", *map(str, range(15)))
    assert server.most_under_way == 5


def test_completions_come_in_the_order_in_which_they_finish(
    server: CompletionServer, tmp_path: Path
) -> None:
    server.answer = lambda r: Reply(said("好").body, delay=float(r.question))
    found, _ = complete(config(server), tmp_path / "l", "0.3", "0.15", "0")
    assert list(found) == ["0", "0.15", "0.3"]


def test_requests_keep_the_rate(server: CompletionServer, tmp_path: Path) -> None:
    began = time.monotonic()
    complete(config(server, requests_per_minute=600), tmp_path / "l", *map(str, range(36)))
    # 10 a second, of which 3 seconds' worth may come at once
    assert max(request.at for request in server.requests) - began >= (36 - 30) / 10


def test_a_key_goes_to_the_endpoint_and_nowhere_else(
    server: CompletionServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", KEY)
    server.answer = lambda r: said(f"你的密钥是 {KEY}", model=KEY)
    found, _ = complete(config(server, key_env="OTHER_KEY"), tmp_path / "l", "a")
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert found["a"].text == "你的密钥是 [key]" and found["a"].model == "[key]"
    assert KEY not in (tmp_path / "l").read_text()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"base_url": "https://example.invalid/v1"}, "OPENAI_API_KEY is not set"),
        ({"key_env": KEY}, "never the key"),
        ({"model": ""}, "endpoint.model=VALUE"),
    ],
)
def test_what_is_missing_is_said_before_any_request(
    server: CompletionServer, tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    with pytest.raises(UserError) as caught:
        Endpoint(config(server, **changes), tmp_path / "l")
    assert part in str(caught.value) and KEY not in str(caught.value)


def test_ctrl_c_takes_in_what_is_paid_for(server: CompletionServer, tmp_path: Path) -> None:
    server.answer = lambda r: Reply(said("好").body, delay=0.4)

    def interrupt() -> None:
        wait_until(lambda: server.under_way == 4)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    settings = config(server, concurrency=4)
    with pytest.raises(KeyboardInterrupt):
        complete(settings, tmp_path / "l", *map(str, range(20)))
    thread.join()
    assert len(server.requests) == 4
    _, endpoint = complete(settings, tmp_path / "l", *map(str, range(4)))
    assert endpoint.traffic.from_ledger == 4 and endpoint.budget.uncertain.total == 0


def test_a_caller_that_stops_early_loses_no_reply(server: CompletionServer, tmp_path: Path) -> None:
    server.answer = lambda r: Reply(said("好").body, delay=0.0 if r.question == "0" else 0.2)
    with Endpoint(config(server, concurrency=4), tmp_path / "l") as endpoint:
        for _ in endpoint.complete(prompts(*map(str, range(4)))):
            break
    assert len(endpoint.ledger) == len(server.requests)


def test_repetitions_carry_the_same_idempotency_key(
    server: CompletionServer, tmp_path: Path
) -> None:
    planted(server)
    complete(config(server), tmp_path / "l", "fails", "html", "plain")
    names = {(r.question, r.headers["idempotency-key"]) for r in server.requests}
    assert len(server.requests) == 5 and len(names) == 3


def test_waits_grow_and_vary() -> None:
    rng = random.Random(0)
    waits = [backoff.backoff_seconds(attempt, rng) for attempt in range(200)]
    assert all(0 < wait <= backoff.MOST_SECONDS for wait in waits)
    assert len(set(waits)) == 200 and max(waits[:3]) < min(waits[20:]) * 10


def test_retry_after_is_seconds_or_a_date() -> None:
    now = backoff.datetime(2026, 12, 1, 3, 0, 0, tzinfo=backoff.UTC)
    read = [
        backoff.retry_after_seconds({"retry-after": value}, now)
        for value in ("7", "0.5", "Tue, 01 Dec 2026 03:01:00 GMT", "soon", "-3", "nan", "1e999")
    ]
    assert read == [7.0, 0.5, 60.0, None, None, None, None]
    assert backoff.retry_after_seconds({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert backoff.retry_after_seconds({}) is None

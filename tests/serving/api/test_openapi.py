"""Requests made up from the server's own OpenAPI document: no 5xx, no hang, answers as described."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.helpers.live_server import Running, serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
GENERATES = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
LIMITS = {
    "/v1/chat/completions": "max_tokens", "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens",
}  # fmt: skip
TRANSLATED = ("/v1/responses", "/v1/messages", "/api/chat", "/api/generate")


@pytest.fixture(scope="module")
def fuzzed(tokenizer) -> Iterator[Running]:
    with serving(tokenizer) as running:
        yield running


def fuzz(server: Running, examples: int) -> int:
    """Call every operation with made-up requests; how many were answered."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    answered = 0
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # raises for what is no operation
        one = operation.as_strategy()
        count = examples if operation.path in GENERATES else max(examples // 20, 5)
        if operation.path in TRANSLATED:
            count = max(examples // 4, 5)

        @settings(
            max_examples=count, deadline=None, database=None, derandomize=examples < 100,
            phases=[Phase.generate],
            suppress_health_check=[
                HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large,
            ],
        )  # fmt: skip
        @given(one)
        def call(case: Any) -> None:
            nonlocal answered
            # A made-up name would end every request at 404, and a made-up length take for ever.
            if isinstance(case.body, dict):
                _bounded(case.path, case.body)
            response = case.call(timeout=30)
            answered += 1
            case.validate_response(response, checks=CHECKS)

        call()
    return answered


def _bounded(path: str, body: dict[str, Any]) -> None:
    """A request that finds its model, for few tokens."""
    body["model"] = "tiny"
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if isinstance(body.get(name), int) and body[name] > 8:
            body[name] = 8
    if path in LIMITS:
        body.setdefault(LIMITS[path], 4)
    if path.startswith("/api/") and isinstance(body.get("options", {}), dict):
        body["options"] = {**body.get("options", {}), "num_predict": 4}


def test_a_short_run(fuzzed: Running) -> None:
    assert fuzz(fuzzed, 40) > 120
    assert fuzzed.client.models.list().data


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_requests(fuzzed: Running) -> None:
    assert fuzz(fuzzed, 3300) > 10_000
    assert fuzzed.idle

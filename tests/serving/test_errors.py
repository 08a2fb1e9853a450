"""Whatever goes wrong is answered in OpenAI's shape, with the right status, and never with a traceback."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import openai
import pytest
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from mengya.generation.batch.engine import EngineConfig
from mengya.serving.api.anthropic.protocol import MessagesRequest
from mengya.serving.api.chat_protocol import ChatRequest
from mengya.serving.api.chat_run import said
from mengya.serving.api.ignored import name_ignored
from mengya.serving.api.ollama.protocol import OllamaChatRequest
from mengya.serving.api.openai_responses.protocol import ResponsesRequest
from mengya.serving.api.protocol import EmbeddingRequest
from mengya.serving.api.tokenization import DetokenizeRequest, TokenizeRequest
from mengya.serving.settings import ServerSettings
from mengya.web.events import one_line
from mengya.web.gate import IGNORED
from tests.helpers.live_server import CONTEXT, Running, serving
from tests.helpers.waiting import wait_until

CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "你好"}]}
USER = {"role": "user", "content": "x"}
IMAGE = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
JSON = {"Content-Type": "application/json"}
CHAT_PATH = "/v1/chat/completions"


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response, when it has OpenAI's shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] and "Traceback" not in response.text
    return body["error"]


WRONG = {
    "no messages": ({"messages": []}, "messages"),
    "unknown field": ({"temprature": 1}, "temprature"),
    "audio": ({"audio": {"voice": "x", "format": "wav"}}, "audio"),
    "modalities": ({"modalities": ["audio"]}, "modalities"),
    "an image": ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content.0.type"),
    "old functions": ({"functions": [{"name": "f"}]}, "functions"),
    "role": ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
    "no content": ({"messages": [{"role": "user"}]}, "messages.0.content"),
    "empty assistant": ({"messages": [{"role": "assistant"}]}, "messages"),
    "temperature": ({"temperature": 2.5}, "temperature"),
    "top_p": ({"top_p": -0.1}, "top_p"),
    "n": ({"n": 17}, "n"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "negative tokens": ({"max_tokens": -2}, "max_tokens"),
    "two limits": ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
    "stops": ({"stop": ["x"] * 17}, "stop"),
    "empty stop": ({"stop": ""}, "stop"),
    "bias key": ({"logit_bias": {"x": 1}}, "logit_bias"),
    "empty bias key": ({"logit_bias": {"": 1}}, "logit_bias"),
    "endless bias key": ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
    "bias value": ({"logit_bias": {"1": 101}}, "logit_bias"),
    "bias id": ({"logit_bias": {"300": 1}}, "logit_bias"),
    "top_logprobs alone": ({"top_logprobs": 2}, "top_logprobs"),
    "stream_options alone": ({"stream": False, "stream_options": {"include_usage": True}}, "stream_options"),
    "choice without tools": ({"tool_choice": "required"}, "tool_choice"),
    "tool name": ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
    "template": ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    "too long": ({"messages": [{"role": "user", "content": "字" * CONTEXT}]}, None),
    "too many tokens": ({"max_tokens": 100_000}, "max_tokens"),
    "too many tokens, newer": ({"max_completion_tokens": 100_000}, "max_completion_tokens"),
    "no list": ({"messages": "x"}, "messages"),
    "a number": ({"stop": 5}, "stop"),
    "surrogate": ({"messages": [{"role": "user", "content": "\ud800"}]}, None),
    "surrogate in a tool": (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": "\ud800"}}}]},
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_requests_are_400(server: Running, name: str, stream: bool) -> None:
    changes, param = WRONG[name]
    body = json.dumps({**CHAT, "stream": stream, **changes})
    headers = {"Content-Type": "application/json"}
    error = refusal(server.http.post(CHAT_PATH, content=body, headers=headers), 400)
    assert error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"].startswith(param)
        assert "list[" not in error["message"] and "StopStrings" not in error["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000,
     json.dumps({**CHAT, "temperature": 0}).replace("0", "NaN").encode(),
     b'{"seed": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_bodies_that_are_no_request(server: Running, body: bytes) -> None:
    for path in (CHAT_PATH, "/v1/completions", "/v1/embeddings"):
        headers = {"Content-Type": "application/json"}
        refusal(server.http.post(path, content=body, headers=headers), 400)


def test_a_form_of_another_page_is_refused(server: Running) -> None:
    """A web page elsewhere may post text/plain without asking; such a body is not read as JSON."""
    headers = {"Content-Type": "text/plain"}
    refusal(server.http.post(CHAT_PATH, content=json.dumps(CHAT), headers=headers), 400)


def test_addresses_and_methods(server: Running, tmp_path: Path, tokenizer) -> None:
    def check(http: httpx.Client) -> None:
        refusal(http.get("/v1/nothing"), 404)
        response = http.get(CHAT_PATH)
        refusal(response, 405)
        assert response.headers["allow"] == "POST"
        assert refusal(http.post(CHAT_PATH, json={**CHAT, "model": "x"}), 404)["code"] == (
            "model_not_found"
        )

    check(server.http)
    assert "萌芽" in server.http.get("/").text  # the chat page of the package
    (tmp_path / "index.html").write_text("<title>页</title>", encoding="utf-8")
    with serving(tokenizer, page=tmp_path) as with_page:
        assert "页" in with_page.http.get("/").text
        check(with_page.http)
        refusal(with_page.http.get("/missing.js"), 404)


def test_openais_exceptions_are_raised(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT, temperature=9)
    assert caught.value.param == "temperature" and caught.value.code == "invalid_value"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**CHAT, "model": "gpt-4"})


def test_the_key(tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = "sk-secret-春".encode().hex()
    with serving(tokenizer, key=key) as server:
        for headers in (
            {},
            {"Authorization": "Bearer x"},
            {"Authorization": key},
            {"Authorization": "Bearer"},
        ):
            for path in ("/v1/models", "/metrics", "/v1/nothing"):
                response = httpx.get(server.url + path, headers=headers)
                assert refusal(response, 401)["code"] == "invalid_api_key"
                assert response.headers["www-authenticate"] == "Bearer"
        assert httpx.get(server.url + "/health").status_code == 200
        assert server.client.models.list().data
        assert server.http.get("/metrics").status_code == 200
        with pytest.raises(openai.AuthenticationError):
            server.client.with_options(api_key="wrong").models.list()
        server.client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "悄悄话"}], max_tokens=2
        )
    ours = [
        r.getMessage()
        for r in caplog.records
        if not r.name.startswith(("httpx", "httpcore", "openai"))
    ]
    assert not any(key in message or "悄悄话" in message for message in ours)


def test_cors_only_as_configured(server: Running, tokenizer) -> None:
    origin = {"Origin": "http://page.example"}
    preflight = {**origin, "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization,content-type"}  # fmt: skip
    assert (
        "access-control-allow-origin" not in server.http.get("/v1/models", headers=origin).headers
    )
    assert server.http.options(CHAT_PATH, headers=preflight).status_code == 405
    settings = ServerSettings(cors_origins=["http://page.example"])
    with serving(tokenizer, settings=settings, key="k") as open_server:
        asked = httpx.options(open_server.url + CHAT_PATH, headers=preflight)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == "http://page.example"
        denied = httpx.get(open_server.url + "/v1/models", headers=origin)
        assert denied.status_code == 401
        assert denied.headers["access-control-allow-origin"] == "http://page.example"
        other = open_server.http.get("/v1/models", headers={"Origin": "http://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_large_bodies(tokenizer) -> None:
    with serving(tokenizer, settings=ServerSettings(max_body_mb=0.01)) as server:
        large = json.dumps({**CHAT, "user": "x" * 40_000}).encode()
        headers = {"Content-Type": "application/json"}
        assert (
            "0.01 MiB"
            in refusal(server.http.post(CHAT_PATH, content=large, headers=headers), 413)["message"]
        )
        # Without a Content-Length, in chunks.
        pieces = (large[i : i + 1000] for i in range(0, len(large), 1000))
        refusal(server.http.post(CHAT_PATH, content=pieces, headers=headers), 413)
        with pytest.raises(openai.APIStatusError) as caught:
            server.client.chat.completions.create(**CHAT, user="x" * 40_000)
        assert caught.value.status_code == 413
        endless = (b" " * 1000 for _ in range(10**9))
        with pytest.raises(httpx.TransportError):
            refused = server.http.post(CHAT_PATH, content=endless, headers=headers)
            raise httpx.TransportError(f"answered early: {refused.status_code}")
        assert server.client.models.list().data


def test_a_full_line_is_429(tokenizer) -> None:
    engine = EngineConfig(max_running=1, max_waiting=1)
    with serving(tokenizer, engine=engine) as server:
        bias = {"0": -100, "2": -100}
        slow = {**CHAT, "max_tokens": 400, "logit_bias": bias, "stream": True}
        first = server.client.chat.completions.create(**slow)
        next(iter(first))
        second = threading.Thread(
            target=lambda: list(server.client.chat.completions.create(**slow)), daemon=True
        )
        second.start()
        wait_until(lambda: (s := server.service.worker.stats) is not None and s.waiting == 1)
        response = server.http.post(CHAT_PATH, json=CHAT)
        assert refusal(response, 429)["code"] == "queue_full"
        assert int(response.headers["retry-after"]) >= 1
        # n at once need n places; those that were already queued are taken back.
        with pytest.raises(openai.RateLimitError):
            server.client.chat.completions.create(**CHAT, n=5)
        # The client's own retries get through once there is room.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            patient = pool.submit(
                server.client.with_options(max_retries=20).chat.completions.create,
                **CHAT,
                max_tokens=1,
            )
            first.close()
            assert patient.result(timeout=60).choices
        second.join(timeout=30)
        wait_until(lambda: server.idle)


def test_while_loading(tokenizer) -> None:
    gate = threading.Event()
    with serving(tokenizer, before_load=gate.wait, wait=False) as server:
        for response in (server.http.get("/health"), server.http.post(CHAT_PATH, json=CHAT)):
            assert refusal(response, 503)["code"] == "loading"
            assert int(response.headers["retry-after"]) >= 1
        gate.set()
        wait_until(lambda: server.http.get("/health").status_code == 200)
        assert server.client.chat.completions.create(**CHAT, max_tokens=1).choices


def test_a_fault_of_ours_is_500_and_leaves_no_prompt_in_the_log(
    tokenizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tokenizer) as server:

        def broken(*args: Any) -> None:
            raise RuntimeError("悄悄话 is broken")

        with monkeypatch.context() as patch:
            patch.setattr("mengya.serving.api.chat_prompt.encode_prompt", broken)
            error = refusal(server.http.post(CHAT_PATH, json=CHAT), 500)
        assert "悄悄话" not in error["message"]
        assert "RuntimeError at" in caplog.text and "悄悄话" not in caplog.text
        engine = server.service.served().engine
        with monkeypatch.context() as patch:
            patch.setattr(engine, "step", _once(broken, engine.step), raising=False)
            assert refusal(server.http.post(CHAT_PATH, json=CHAT), 503)["code"] == "lost"
            wait_until(lambda: not engine.has_work)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "step", _once(broken, engine.step), raising=False)
            with server.http.stream("POST", CHAT_PATH, json={**CHAT, "stream": True}) as response:
                last = [line for line in response.iter_lines() if line][-1]
            assert json.loads(last[6:])["error"]["code"] == "lost"
        assert server.client.chat.completions.create(**CHAT, max_tokens=2).choices
        wait_until(lambda: server.idle)
        # An engine that fails again and again is given up, and says so.
        with monkeypatch.context() as patch:
            patch.setattr(engine, "step", broken, raising=False)
            assert refusal(server.http.post(CHAT_PATH, json=CHAT), 503)["code"] == "lost"
            wait_until(lambda: server.service.worker.state == "failed")
        assert refusal(server.http.get("/health"), 503)["code"] == "stopped"
        assert refusal(server.http.post(CHAT_PATH, json=CHAT), 503)["code"] == "stopped"
        assert "悄悄话" not in caplog.text


def _once(first: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """Calls `first` the first time and `then` ever after."""
    calls = itertools.chain([first], itertools.repeat(then))
    return lambda *args: next(calls)(*args)


def test_half_a_request_holds_nobody_up(server: Running) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
                     b"Content-Type: application/json\r\n\r\n{")  # fmt: skip
        assert server.client.models.list().data
    wait_until(lambda: server.service.traffic.in_flight == 0)


def test_metrics_count(tokenizer) -> None:
    with serving(tokenizer) as server:
        reply = server.client.chat.completions.create(
            **CHAT, max_tokens=7, logit_bias={"0": -100, "2": -100}
        )
        server.http.get("/v1/evil/path")
        text = server.http.get("/metrics").text
        assert reply.usage is not None
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert float(values['mengya_completion_tokens_total{model="tiny"}']) == 7
        assert (
            float(values['mengya_prompt_tokens_total{model="tiny"}']) == reply.usage.prompt_tokens
        )
        assert float(values['mengya_requests_total{path="/v1/chat/completions",status="200"}']) == 1
        assert float(values['mengya_requests_total{path="other",status="404"}']) == 1
        assert float(values['mengya_time_to_first_token_seconds_count{model="tiny"}']) == 1
        tiny = '{model="tiny"}'
        assert values[f"mengya_free_pages{tiny}"] == values[f"mengya_total_pages{tiny}"]
        assert float(values[f"mengya_running{tiny}"]) == 0


@pytest.mark.parametrize(
    ("request_class", "body"),
    [
        (ChatRequest, {"messages": [0] * 5000}),
        (MessagesRequest, {"messages": [0] * 5000, "max_tokens": 1}),
        (ResponsesRequest, {"input": [0] * 5000}),
        (OllamaChatRequest, {"messages": [0] * 5000}),
        (EmbeddingRequest, {"input": [{}] * 5000}),
        (TokenizeRequest, {"messages": [0] * 5000}),
        (DetokenizeRequest, {"tokens": ["x"] * 5000}),
    ],
)
def test_the_first_wrong_item_is_enough(
    request_class: type[BaseModel], body: dict[str, Any]
) -> None:
    """An error for each of a million took half a minute, in which the server answered nobody."""
    with pytest.raises(ValidationError) as caught:
        request_class.model_validate({"model": "x", **body})
    assert caught.value.error_count() < 20


def test_numbers_that_json_does_not_have(server: Running) -> None:
    for number in ("NaN", "1e999"):
        tool = f'{{"type": "function", "name": "f", "parameters": {{"x": {number}}}}}'
        body = f'{{"model": "tiny", "input": "x", "tools": [{tool}]}}'
        answer = server.http.post("/v1/responses", content=body, headers=JSON)
        assert answer.status_code == 400 and "NaN or infinite" in answer.text, number


def test_names_are_not_translated() -> None:
    text = "no model named 'messages'; messages are wrong"
    assert said([text], {"messages": "input"}) == ["no model named 'messages'; input are wrong"]


def test_the_header_of_what_was_ignored_is_bounded() -> None:
    response = Response()
    name_ignored(response, ["萌" * 900])
    assert 100 < len(response.headers[IGNORED]) <= 4096
    assert set(unquote(response.headers[IGNORED])) == {"萌"}


def test_events_are_one_line_for_every_client() -> None:
    text = "a\x85b\u2028c\u2029d"
    line = one_line(json.dumps(text, ensure_ascii=False))
    assert len(line.splitlines()) == 1 and json.loads(line) == text

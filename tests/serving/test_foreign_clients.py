"""What other clients send in addition: ignored and named where it changes nothing, else refused."""

from __future__ import annotations

import copy
from typing import Any

import httpx
import openai
import pytest

from mengya.serving.settings import ServerSettings
from mengya.tokenizer.chat_template import encode_prompt
from tests.helpers.live_server import CONTEXT, Running, serving

USER: list[Any] = [{"role": "user", "content": "春眠不觉晓"}]
PATH = "/v1/chat/completions"
IGNORED = "x-mengya-ignored"


def send(server: Running, **body: Any) -> httpx.Response:
    return server.http.post(
        PATH, json={"model": "tiny", "messages": USER, "max_tokens": 4, "temperature": 0, **body}
    )


def test_null_asks_for_nothing(server: Running) -> None:
    nulls = {"prediction": None, "web_search_options": None, "functions": None, "x": None}
    tool = {"type": "function", "function": {"name": "f", "x": None}, "cache": None}
    reply = send(server, **nulls, tools=[tool], messages=[{**USER[0], "x": None}])
    assert reply.status_code == 200 and IGNORED not in reply.headers
    assert server.http.post(
        "/v1/completions", json={"model": "tiny", "prompt": "春", "suffix": None, "max_tokens": 1}
    ).is_success


@pytest.mark.parametrize("stream", [False, True])
def test_what_changes_nothing_is_named_in_a_header(server: Running, stream: bool) -> None:
    plain = send(server)
    messages = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "春眠", "cache_control": {"type": "ephemeral"}}],
        },
        {"role": "assistant", "content": "不", "provider_specific_fields": {"a": 1}, "名": 1},
        *USER,
    ]
    reply = send(server, messages=messages, verbosity="low", stream=stream)
    assert reply.status_code == 200
    assert reply.headers[IGNORED] == (
        "verbosity; messages.0.content.0.cache_control; messages.1.provider_specific_fields; "
        "messages.1.%E5%90%8D"
    )
    assert IGNORED not in plain.headers
    options = send(server, chat_template_kwargs={"nobody_knows_this": 1})
    assert options.headers[IGNORED] == "chat_template_kwargs.nobody_knows_this"
    assert options.json()["choices"] == plain.json()["choices"]


def test_a_name_that_no_header_could_end_with(server: Running) -> None:
    for name in (" ", "x" * 988 + " y"):
        reply = send(server, messages=[{**USER[0], name: 1}])
        assert reply.status_code == 200 and reply.headers[IGNORED].startswith("messages.0.")


def test_what_changes_the_answer_is_refused(server: Running) -> None:
    for body in (
        {"temprature": 1},
        {"chat_template_kwargs": {"tools": []}},
        {"add_generation_prompt": False},
        {"continue_final_message": True},
    ):
        assert send(server, **body).status_code == 400


def test_every_spelling_of_no_reasoning(server: Running, tokenizer) -> None:
    off = len(encode_prompt(tokenizer, USER, enable_thinking=False))
    assert off > len(encode_prompt(tokenizer, USER))
    for body in (
        {"enable_thinking": False},
        {"thinking": {"type": "disabled", "budget_tokens": 5}},
        {"thinking": False},
        {"chat_template_kwargs": {"thinking": False}},
    ):
        assert send(server, **body).json()["usage"]["prompt_tokens"] == off, body
    on = send(server, thinking={"type": "enabled"}).json()["usage"]["prompt_tokens"]
    assert on < off


def test_vllms_name_of_reasoning(server: Running, tokenizer) -> None:
    messages = [*USER, {"role": "assistant", "content": "好", "reasoning": "嗯"}, *USER]
    ours = [*USER, {"role": "assistant", "content": "好", "reasoning_content": "嗯"}, *USER]
    reply = send(server, messages=messages)
    assert reply.json()["usage"]["prompt_tokens"] == len(encode_prompt(tokenizer, ours))


@pytest.mark.parametrize("how", ["continue", "prefix", "partial"])
def test_the_reply_continues_the_last_message(server: Running, tokenizer, how: str) -> None:
    begun = {"role": "assistant", "content": "处处 "} | ({} if how == "continue" else {how: True})
    more = {"continue_final_message": True, "add_generation_prompt": False}
    body = {"messages": [*USER, begun], **(more if how == "continue" else {})}
    reply = send(server, **body, max_tokens=8).json()
    ids = tokenizer.encode("处处 ", add_special_tokens=False)
    prompt = [*encode_prompt(tokenizer, USER), *ids]
    assert reply["usage"]["prompt_tokens"] == len(prompt)
    expected = server.http.post(
        "/v1/completions",
        json={"model": "tiny", "prompt": prompt, "max_tokens": 8, "temperature": 0},
    ).json()["choices"][0]["text"]
    assert reply["choices"][0]["message"]["content"] == expected


def test_a_begun_answer_under_a_template_that_opens_the_reasoning(tokenizer) -> None:
    thinking = copy.deepcopy(tokenizer)
    thinking.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}<think>\n"
    with serving(thinking) as server:
        messages = [*USER, {"role": "assistant", "content": "处", "prefix": True}]
        message = send(server, messages=messages, max_tokens=8).json()["choices"][0]["message"]
        assert message["content"] and "reasoning_content" not in message


def test_more_tokens_than_there_is_room_for(tokenizer) -> None:
    with serving(tokenizer, settings=ServerSettings(clamp_max_tokens=True)) as server:
        reply = send(server, max_tokens=100_000)
        assert reply.status_code == 200 and reply.json()["usage"]["total_tokens"] <= CONTEXT
        text = server.client.completions.create(model="tiny", prompt="春", max_tokens=100_000)
        assert text.usage is not None and text.usage.total_tokens <= CONTEXT
        too_long = [{"role": "user", "content": "字" * CONTEXT}]
        assert send(server, messages=too_long).status_code == 400


def test_addresses(server: Running) -> None:
    assert server.http.head("/health").status_code == 200
    error = server.http.post("/chat/completions", json={}).json()["error"]
    assert "add /v1 to base_url" in error["message"]
    with pytest.raises(openai.APIStatusError, match="add /v1 to base_url"):
        openai.OpenAI(base_url=server.url, api_key="x", max_retries=0).chat.completions.create(
            model="tiny", messages=USER
        )


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/models", "add /v1 to base_url"),
        ("/responses", "add /v1 to base_url"),
        ("/v1/v1/chat/completions", "take /v1 out of base_url"),
        ("/v1/chat/completions/chat/completions", "let base_url end in /v1"),
        ("/v1/nothing", None),
        ("/x" * 20_000, None),
    ],
)
def test_a_wrong_base_url_is_named(server: Running, path: str, hint: str | None) -> None:
    response = server.http.post(path, json={})
    assert response.status_code in (404, 405)
    message = response.json()["error"]["message"]
    assert hint in message if hint else "base_url" not in message


def test_what_two_types_are_refused_for_is_said_once(server: Running) -> None:
    body = {"model": "tiny", "prompt": 5}
    error = server.http.post("/v1/completions", json=body).json()["error"]
    assert error["param"] == "prompt"
    assert error["message"] == "prompt: Input should be a valid string or a valid list"

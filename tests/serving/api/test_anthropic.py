"""Anthropic's Messages API through the real anthropic client."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx
import pytest

from mengya.tokenizer.chat_template import encode_prompt
from tests.helpers.learned_chat import ASKED, CALLED, RESULTS, THOUGHT, TOOLS
from tests.helpers.live_server import CONTEXT, Running, serving

GREEDY = {"temperature": 0}  # which this client no longer has as an argument
USER: list[Any] = [{"role": "user", "content": "春眠不觉晓"}]
OWN_TOOLS: list[Any] = [
    {
        ("input_schema" if key == "parameters" else key): value
        for key, value in tool["function"].items()
    }
    for tool in TOOLS
]


def client_of(server: Running, key: str = "none") -> Any:
    return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=60)


def ask(server: Running, **more: Any) -> Any:
    body = {"model": "tiny", "messages": USER, "max_tokens": 12, "extra_body": GREEDY}
    return client_of(server).messages.create(**{**body, **more})


def openai_text(server: Running, messages: list[Any], **more: Any) -> str:
    body = {"model": "tiny", "messages": messages, "max_tokens": 12, "temperature": 0, **more}
    reply = server.client.chat.completions.create(**body)
    return reply.choices[0].message.content or ""


def test_the_reply_is_the_models_own(server: Running, tokenizer) -> None:
    blocks: Any = [{"type": "text", "text": "答"}, {"type": "text", "text": "诗"}]
    reply = ask(server, system=blocks)
    ours = [{"role": "system", "content": "答诗"}, *USER]
    assert [block.type for block in reply.content] == ["text"]
    assert reply.content[0].text == openai_text(server, ours)
    assert (reply.type, reply.role, reply.model) == ("message", "assistant", "tiny")
    assert reply.stop_reason == "max_tokens" and reply.stop_sequence is None
    usage = reply.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == len(encode_prompt(tokenizer, ours))
    assert usage.output_tokens == 12
    assert ask(server, system="答诗").content[0].text == reply.content[0].text


def test_a_stream_adds_up_to_the_same_message(server: Running) -> None:
    full = ask(server, max_tokens=40)
    body = {"model": "tiny", "messages": USER, "max_tokens": 40, "extra_body": GREEDY}
    with client_of(server).messages.stream(**body) as stream:
        texts = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(texts) == final.content[0].text == full.content[0].text
    assert len(texts) > 5 and final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 40
    kinds = [event.type for event in client_of(server).messages.create(**body, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_stop_sequences_are_named(learned_server: Running) -> None:
    more: Any = {"messages": THOUGHT[:1], "max_tokens": 200, "stop_sequences": ["@@@@", "的"]}
    reply = ask(learned_server, **more)
    assert reply.content[-1].text == "好"
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", "的")
    *_, delta, _ = ask(learned_server, stream=True, **more)
    assert (delta.delta.stop_reason, delta.delta.stop_sequence) == ("stop_sequence", "的")


@pytest.mark.parametrize("stream", [False, True])
def test_a_round_of_tools(learned_server: Running, tokenizer, stream: bool) -> None:
    server = learned_server
    more = {"messages": ASKED, "tools": OWN_TOOLS, "max_tokens": 200}
    if stream:
        body = {"model": "tiny", "extra_body": GREEDY, **more}
        with client_of(server).messages.stream(**body) as events:
            first = events.get_final_message()
    else:
        first = ask(server, **more)
    assert first.stop_reason == "tool_use"
    text, *uses = first.content
    assert text.text == "我算🙂。"
    assert [(use.name, use.input) for use in uses] == [("add", {"a": 1, "b": 2}), ("now", {})]
    results = [
        {"type": "tool_result", "tool_use_id": use.id, "content": result["content"]}
        for use, result in zip(uses, RESULTS, strict=True)
    ]
    again = [*ASKED, first.to_param(), {"role": "user", "content": results}]
    second = ask(server, messages=again, tools=OWN_TOOLS)
    usage = second.usage
    expected = len(encode_prompt(tokenizer, [*CALLED, *RESULTS], TOOLS))
    assert usage.input_tokens + usage.cache_read_input_tokens == expected
    assert usage.cache_read_input_tokens > 0
    counted = client_of(server).messages.count_tokens(model="tiny", messages=again, tools=OWN_TOOLS)
    assert counted.input_tokens == expected


def test_choosing_tools(learned_server: Running) -> None:
    choice: Any = {"type": "tool", "name": "add"}
    more: Any = {"messages": ASKED, "tools": OWN_TOOLS, "max_tokens": 200}
    reply = ask(learned_server, **more, tool_choice=choice)
    (use,) = reply.content
    assert use.name == "add" and set(use.input) == {"a", "b"} and reply.stop_reason == "tool_use"
    one = ask(
        learned_server, **more, tool_choice={"type": "auto", "disable_parallel_tool_use": True}
    )
    assert [block.type for block in one.content] == ["text", "tool_use"]
    none = ask(learned_server, **more, tool_choice={"type": "none"})
    assert none.content == ask(learned_server, messages=ASKED, max_tokens=200).content


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_is_a_block(learned_server: Running, stream: bool) -> None:
    body = {"model": "tiny", "messages": THOUGHT[:1], "max_tokens": 200, "extra_body": GREEDY}
    with client_of(learned_server).messages.stream(**body) as events:
        streamed = events.get_final_message()
    reply = streamed if stream else client_of(learned_server).messages.create(**body)
    thought, answer = reply.content
    assert (thought.type, thought.thinking, answer.text) == ("thinking", "龘字难写", "好的𠮷")
    assert reply.stop_reason == "end_turn"
    again = [*THOUGHT[:1], reply.to_param(), {"role": "user", "content": "再"}]
    counted = client_of(learned_server).messages.count_tokens(model="tiny", messages=again)
    ours = server_count(learned_server, [*THOUGHT, {"role": "user", "content": "再"}])
    assert counted.input_tokens == ours


def server_count(server: Running, messages: list[Any]) -> int:
    body = {"model": "tiny", "messages": messages}
    return server.http.post("/tokenize", json=body).json()["count"]


def test_a_last_message_of_the_assistant_is_continued(server: Running) -> None:
    begun = [*USER, {"role": "assistant", "content": "处处"}]
    expected = openai_text(server, begun, extra_body={"continue_final_message": True})
    assert ask(server, messages=begun).content[0].text == expected


def test_json_of_a_schema(server: Running) -> None:
    schema = {
        "type": "object", "properties": {"城市": {"enum": ["北京", "上海"]}}, "required": ["城市"],
        "additionalProperties": False,
    }  # fmt: skip
    form: Any = {"format": {"type": "json_schema", "schema": schema}}
    reply = ask(server, output_config=form, max_tokens=100)
    assert json.loads(reply.content[0].text)["城市"] in ("北京", "上海")


def test_what_has_no_effect_is_named(server: Running) -> None:
    cached: Any = {"type": "ephemeral"}
    raw = client_of(server).messages.with_raw_response.create(
        model="tiny",
        max_tokens=2,
        system=[{"type": "text", "text": "答", "cache_control": cached}],
        messages=USER,
        metadata={"user_id": "u"},
        thinking={"type": "enabled", "budget_tokens": 1024},
        extra_headers={"anthropic-beta": "x"},
    )
    named = raw.headers["x-mengya-ignored"].split("; ")
    assert sorted(named) == [
        "header anthropic-beta", "metadata", "system.0.cache_control", "thinking.budget_tokens"
    ]  # fmt: skip


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        "messages.0.content.0",
    ),
    "no length": ({"max_tokens": None}, "max_tokens"),
    "unknown": ({"top_x": 1}, "top_x"),
    "a tool of another server": (
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"
    ),
    "a tool that is not there": (
        {"tools": OWN_TOOLS, "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice"
    ),
    "too much": ({"max_tokens": 100_000}, "(max_tokens): ask for"),
    "an open call": (
        {"messages": [{"role": "assistant", "content": [
            {"type": "tool_use", "id": "x", "name": "add", "input": {}}]}]},
        "tool_result",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_anthropics(server: Running, name: str) -> None:
    changes, said = WRONG[name]
    body = {"model": "tiny", "messages": USER, "max_tokens": 4, **changes}
    with pytest.raises(anthropic.BadRequestError) as caught:
        client_of(server).messages.create(
            model="tiny", max_tokens=4, messages=USER, extra_body=body
        )
    error: Any = caught.value.body
    assert error["type"] == "error" and error["error"]["type"] == "invalid_request_error"
    assert said in error["error"]["message"]


def test_other_errors(server: Running, tokenizer) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        ask(server, model="x")
    assert missing.value.type == "not_found_error"
    before = ask(server, extra_headers={"anthropic-version": "2023-06-01"})
    assert before.content == ask(server).content
    with pytest.raises(anthropic.BadRequestError, match="2023-06-01"):
        ask(server, extra_headers={"anthropic-version": "2023-01-01"})
    with pytest.raises(anthropic.BadRequestError, match=f"context is {CONTEXT}"):
        ask(server, messages=[{"role": "user", "content": "字" * CONTEXT}])
    twice = anthropic.Anthropic(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
    with pytest.raises(anthropic.NotFoundError, match="take /v1 out of base_url"):
        twice.messages.create(model="tiny", max_tokens=1, messages=USER)
    with serving(tokenizer, key="k") as guarded:
        with pytest.raises(anthropic.AuthenticationError):
            ask(guarded, extra_headers={"x-api-key": "wrong", "Authorization": "Bearer wrong"})
        assert client_of(guarded, "k").messages.create(model="tiny", max_tokens=1, messages=USER)
        body = {"model": "tiny", "max_tokens": 1, "messages": USER}
        for headers in ({"X-Api-Key": "k"}, {"Authorization": "bearer k"}):  # of older clients
            assert httpx.post(f"{guarded.url}/v1/messages", json=body, headers=headers).is_success
        refused = httpx.post(f"{guarded.url}/v1/messages", json=body, headers={"X-Api-Key": "x"})
        assert refused.json()["error"]["type"] == "authentication_error"


def test_an_error_within_a_stream_is_raised(tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tokenizer) as server:

        def broken() -> None:
            raise RuntimeError("x")

        monkeypatch.setattr(server.service.served().engine, "step", broken, raising=False)
        with pytest.raises(anthropic.APIStatusError, match="given up"):
            list(ask(server, stream=True))

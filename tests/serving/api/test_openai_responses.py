"""OpenAI's Responses API through the real openai client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from mengya.tokenizer.chat_template import encode_prompt
from tests.helpers.learned_chat import ASKED, CALLED, RESULTS, THOUGHT, TOOLS
from tests.helpers.live_server import Running, serving

OWN_TOOLS: list[Any] = [{"type": "function", **tool["function"]} for tool in TOOLS]


def ask(server: Running, **more: Any) -> Any:
    body = {"model": "tiny", "input": "春眠不觉晓", "max_output_tokens": 12, "temperature": 0}
    return server.client.responses.create(**{**body, **more})


def chat_text(server: Running, messages: list[Any], **more: Any) -> str:
    body = {"model": "tiny", "messages": messages, "max_tokens": 12, "temperature": 0, **more}
    return server.client.chat.completions.create(**body).choices[0].message.content or ""


def test_the_reply_is_the_models_own(server: Running, tokenizer) -> None:
    ours = [{"role": "system", "content": "答"}, {"role": "user", "content": "春眠不觉晓"}]
    reply = ask(server, instructions="答", metadata={"a": "b"})
    assert reply.output_text == chat_text(server, ours)
    assert reply.status == "incomplete"
    assert reply.incomplete_details.reason == "max_output_tokens"
    assert reply.usage.input_tokens == len(encode_prompt(tokenizer, ours))
    assert reply.usage.output_tokens == 12 and reply.metadata == {"a": "b"}
    items = [{"role": "developer", "content": [{"type": "input_text", "text": "答"}]}, ours[1]]
    assert ask(server, input=items).output_text == reply.output_text


def test_a_stream_adds_up_to_the_same_response(server: Running) -> None:
    full = ask(server, max_output_tokens=40)
    events = list(ask(server, max_output_tokens=40, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added",
    ]  # fmt: skip
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.incomplete",
    ]  # fmt: skip
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == full.output_text and len(deltas) > 5
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == full.output_text
    assert events[-1].response.usage.output_tokens == 40


@pytest.mark.parametrize("stream", [False, True])
def test_a_round_of_tools(learned_server: Running, tokenizer, stream: bool) -> None:
    server = learned_server
    more: Any = {"input": ASKED, "tools": OWN_TOOLS, "max_output_tokens": 200}
    if stream:
        with server.client.responses.stream(model="tiny", temperature=0, **more) as events:
            list(events)
            first = events.get_final_response()
    else:
        first = ask(server, **more)
    assert first.status == "completed" and first.output_text == "我算🙂。"
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(call.name, call.arguments) for call in calls] == [
        ("add", '{"a": 1, "b": 2}'), ("now", "{}"),
    ]  # fmt: skip
    outputs = [
        {"type": "function_call_output", "call_id": call.call_id, "output": result["content"]}
        for call, result in zip(calls, RESULTS, strict=True)
    ]
    sent = [item.model_dump(exclude_none=True) for item in first.output]
    for item in sent:
        item.pop("parsed_arguments", None)
    second = ask(server, input=[*ASKED, *sent, *outputs], tools=OWN_TOOLS)
    assert second.output_text == "是三。"
    assert second.usage.input_tokens == len(encode_prompt(tokenizer, [*CALLED, *RESULTS], TOOLS))
    assert second.usage.input_tokens_details.cached_tokens > 0


def test_reasoning_is_an_item(learned_server: Running, tokenizer) -> None:
    asked = THOUGHT[:1]
    reply = ask(learned_server, input=asked, max_output_tokens=200)
    thought, answer = reply.output
    assert thought.content[0].text == "龘字难写" and answer.content[0].text == "好的𠮷"
    assert 0 < reply.usage.output_tokens_details.reasoning_tokens < reply.usage.output_tokens
    events = ask(learned_server, input=asked, max_output_tokens=200, stream=True)
    deltas = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
    assert "".join(deltas) == "龘字难写"
    sent = [item.model_dump(exclude_none=True) for item in reply.output]
    again = ask(learned_server, input=[*asked, *sent, *ASKED], max_output_tokens=1)
    assert again.usage.input_tokens == len(encode_prompt(tokenizer, [*THOUGHT, *ASKED]))
    off = ask(learned_server, input=asked, reasoning={"effort": "none"})
    expected = len(encode_prompt(tokenizer, asked, enable_thinking=False))
    assert off.usage.input_tokens == expected


def test_structured_output(server: Running, learned_server: Running) -> None:
    schema = {
        "type": "object", "properties": {"城市": {"enum": ["北京", "上海"]}}, "required": ["城市"],
        "additionalProperties": False,
    }  # fmt: skip
    form = {"format": {"type": "json_schema", "name": "x", "strict": True, "schema": schema}}
    reply = ask(server, text=form, max_output_tokens=100)
    assert json.loads(reply.output_text)["城市"] in ("北京", "上海")
    assert reply.text.format.schema_ == schema
    choice = {"type": "function", "name": "add"}
    more: Any = {"input": ASKED, "max_output_tokens": 200}
    forced = ask(learned_server, tools=OWN_TOOLS, tool_choice=choice, **more)
    assert [item.name for item in forced.output] == ["add"]


def test_logprobs(server: Running) -> None:
    reply = ask(server, top_logprobs=2, include=["message.output_text.logprobs"])
    chosen = reply.output[0].content[0].logprobs
    assert chosen and len(chosen[0].top_logprobs) == 2
    assert all(one.logprob <= 0 for one in chosen)


def test_what_has_no_effect_is_named(server: Running) -> None:
    raw = server.client.responses.with_raw_response.create(
        model="tiny", input="春", max_output_tokens=2, store=True, user="u",
        reasoning={"effort": "low", "summary": "auto"}, include=["reasoning.encrypted_content"],
        text={"verbosity": "low"},
    )  # fmt: skip
    assert sorted(raw.headers["x-mengya-ignored"].split("; ")) == [
        "include.reasoning.encrypted_content", "reasoning", "store", "text.verbosity", "user",
    ]  # fmt: skip
    plain = server.client.responses.with_raw_response.create(
        model="tiny", input="春", max_output_tokens=2, store=False
    )
    assert "x-mengya-ignored" not in plain.headers


WRONG: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "an earlier response": ({"previous_response_id": "resp_1"}, "previous_response_id", "stored"),
    "a conversation": ({"conversation": "conv_1"}, "conversation", "nothing is stored"),
    "background": ({"background": True}, "background", "False"),
    "a reference": ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0", "item_reference"),
    "an image": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        "input.0.content.0.type", "input_text",
    ),
    "a tool of another server": ({"tools": [{"type": "web_search"}]}, "tools.0.type", "function"),
    "a choice without tools": ({"tool_choice": "required"}, "tool_choice", "needs tools"),
    "tools and a form": (
        {"tools": OWN_TOOLS, "text": {"format": {"type": "json_object"}}}, "text.format",
        "no text.format",
    ),
    "too much": ({"max_output_tokens": 100_000}, "max_output_tokens", "or -1"),
    "no length": ({"max_output_tokens": 0}, "max_output_tokens", "at least 1"),
    "cutting": ({"truncation": "auto"}, "truncation", "disabled"),
    "temperature": ({"temperature": 3}, "temperature", "less than"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_errors_name_what_was_sent(server: Running, name: str) -> None:
    changes, param, said = WRONG[name]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(server, **changes)
    assert caught.value.param == param and said in caught.value.message


def test_the_remedy_of_a_limit_is_accepted(learned_server: Running) -> None:
    assert ask(learned_server, input=THOUGHT[:1], max_output_tokens=-1).status == "completed"


def test_an_error_within_a_stream_is_raised(tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tokenizer) as server:

        def broken() -> None:
            raise RuntimeError("x")

        monkeypatch.setattr(server.service.served().engine, "step", broken, raising=False)
        with pytest.raises(openai.APIError, match="given up"):
            list(ask(server, stream=True))

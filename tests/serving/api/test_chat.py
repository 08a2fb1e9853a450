"""Every parameter of /v1/chat/completions through the real openai client, on a tiny random model."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
import torch

from mengya.tokenizer.chat_template import encode_prompt
from tests.helpers.live_server import CONTEXT, Running, tiny_model

ASK: list[Any] = [{"role": "user", "content": "春眠不觉晓"}]


def ask(client: openai.OpenAI, **settings: Any) -> Any:
    return client.chat.completions.create(
        **{"model": "tiny", "messages": ASK, "max_tokens": 12, "seed": 3, **settings}
    )


def streamed(client: openai.OpenAI, **settings: Any) -> list[Any]:
    return list(ask(client, stream=True, **settings))


def text_of(chunks: list[Any], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def greedy_ids(tokenizer, count: int, messages: list[Any] = ASK) -> list[int]:
    """The tokens that a plain loop over full forward passes takes."""
    model, ids = tiny_model(), encode_prompt(tokenizer, messages)
    start = len(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids])).head_output[0, -1].argmax()))
    return ids[start:]


def test_greedy_reply_is_the_models_own(client: openai.OpenAI, tokenizer) -> None:
    expected = tokenizer.decode(greedy_ids(tokenizer, 12), skip_special_tokens=True)
    reply = ask(client, temperature=0)
    # Leading white space is the template's; a character that the limit cut is dropped.
    assert reply.choices[0].message.content == expected.lstrip().removesuffix("\ufffd")
    assert reply.choices[0].finish_reason == "length"
    assert reply.object == "chat.completion" and reply.model == "tiny"
    assert reply.usage.prompt_tokens == len(encode_prompt(tokenizer, ASK))
    assert reply.usage.completion_tokens == 12
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 12


def test_a_stream_is_the_same_text_with_usage_and_done(server: Running) -> None:
    full = ask(server.client, max_tokens=40)
    chunks = streamed(server.client, max_tokens=40, stream_options={"include_usage": True})
    assert text_of(chunks) == full.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    *body, last = chunks
    assert all(chunk.usage is None for chunk in body)
    assert last.choices == [] and last.usage.completion_tokens == 40
    ends = [c.choices[0].finish_reason for c in body if c.choices[0].finish_reason]
    assert ends == ["length"]
    request = {"model": "tiny", "messages": ASK, "max_tokens": 2, "stream": True}
    with server.http.stream("POST", "/v1/chat/completions", json=request) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all("usage" not in json.loads(line[6:]) for line in lines[:-1])


def test_characters_of_several_tokens_arrive_complete(client: openai.OpenAI, tokenizer) -> None:
    """logit_bias leaves the model the three bytes of one rare character."""
    ids = [tokenizer.convert_tokens_to_ids(t) for t in tokenizer.tokenize("龘")]
    assert len(ids) == 3
    bias = {str(token): 100 for token in ids}
    chunks = streamed(client, max_tokens=60, logit_bias=bias, temperature=1.0)
    pieces = [
        c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content
    ]
    full = ask(client, max_tokens=60, logit_bias=bias, temperature=1.0).choices[0].message.content
    assert "".join(pieces) == full
    made = full.replace("\ufffd", "")
    assert made and set(made.encode()) <= set("龘".encode())
    assert len(pieces) < 60


def test_seed_and_n(client: openai.OpenAI) -> None:
    first, again = (ask(client, n=3, temperature=1.2) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert len(set(texts)) == 3 and [c.index for c in first.choices] == [0, 1, 2]
    assert ask(client, temperature=1.2).choices[0].message.content == texts[0]
    assert ask(client, temperature=1.2, seed=4).choices[0].message.content == texts[1]
    chunks = streamed(client, n=3, temperature=1.2)
    assert [text_of(chunks, index) for index in range(3)] == texts
    assert first.usage == again.usage and 3 <= first.usage.completion_tokens <= 36
    unseeded = {
        ask(client, seed=None, temperature=1.5).choices[0].message.content for _ in range(3)
    }
    assert len(unseeded) > 1


@pytest.mark.parametrize("as_list", [False, True])
def test_stop_strings_across_tokens(client: openai.OpenAI, as_list: bool) -> None:
    full = ask(client, max_tokens=60).choices[0].message.content
    stop = next(full[i : i + 3] for i in range(8, 40) if "\ufffd" not in full[i : i + 3])
    expected = full[: full.find(stop)]
    wanted = ["@@@@", stop] if as_list else stop
    reply = ask(client, max_tokens=60, stop=wanted)
    assert reply.choices[0].message.content == expected
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.completion_tokens < 60
    seen = ""
    for chunk in ask(client, max_tokens=60, stop=wanted, stream=True):
        seen += chunk.choices[0].delta.content or ""
        assert expected.startswith(seen)
    assert seen == expected


def test_logprobs_are_the_models(client: openai.OpenAI, tokenizer) -> None:
    reply = ask(client, logprobs=True, top_logprobs=3, temperature=1.0)
    entries = reply.choices[0].logprobs.content
    assert len(entries) == 12
    ids, prompt = greedy_ids(tokenizer, 12), encode_prompt(tokenizer, ASK)
    with torch.no_grad():
        logits = tiny_model()(torch.tensor([[*prompt, *ids]])).head_output[0].log_softmax(-1)
    expected = [logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(ids)]
    greedy = ask(client, logprobs=True, top_logprobs=3, temperature=0).choices[0].logprobs.content
    assert sum(one.logprob for one in greedy) == pytest.approx(sum(expected), abs=1e-3)
    for one in greedy:
        assert one.top_logprobs[0].logprob == one.logprob
        assert [t.logprob for t in one.top_logprobs] == sorted(
            (t.logprob for t in one.top_logprobs), reverse=True
        )
    text = b"".join(bytes(one.bytes) for one in greedy).decode(errors="replace")
    shown = tokenizer.decode(ids, skip_special_tokens=False)
    assert text == shown
    chunks = streamed(client, logprobs=True, top_logprobs=3, temperature=0)
    parts = [c.choices[0].logprobs.content for c in chunks if c.choices[0].logprobs]
    assert [o.logprob for part in parts for o in part] == pytest.approx([o.logprob for o in greedy])


def test_a_stop_string_takes_its_tokens_logprobs_with_it(client: openai.OpenAI) -> None:
    full = ask(client, max_tokens=30, logprobs=True)
    content = full.choices[0].message.content
    stop = next(content[i] for i in range(5, 30) if content[i] not in "\ufffd" + content[:i])
    cut = ask(client, max_tokens=30, logprobs=True, stop=stop)
    covered = b"".join(bytes(o.bytes) for o in cut.choices[0].logprobs.content)
    assert stop not in covered.decode(errors="replace")
    assert len(cut.choices[0].logprobs.content) < len(full.choices[0].logprobs.content)


def test_logit_bias_bans_and_forces(client: openai.OpenAI, tokenizer) -> None:
    token = tokenizer.convert_tokens_to_ids("a")
    forced = ask(client, logit_bias={str(token): 100}, temperature=1.0)
    assert forced.choices[0].message.content == "a" * 12
    greedy = greedy_ids(tokenizer, 1)[0]
    reply = ask(client, logit_bias={str(greedy): -100}, temperature=0, logprobs=True, max_tokens=1)
    assert tuple(reply.choices[0].logprobs.content[0].bytes) != tuple(
        tokenizer.convert_ids_to_tokens(greedy).encode()
    )


def test_penalties_and_filters_reach_the_engine(client: openai.OpenAI, tokenizer) -> None:
    token = str(tokenizer.convert_tokens_to_ids("a"))
    other = str(tokenizer.convert_tokens_to_ids("b"))
    bias = {token: 60, other: 59}
    plain = ask(client, logit_bias=bias, temperature=0).choices[0].message.content
    assert set(plain) == {plain[0]}
    penalized = ask(client, logit_bias=bias, temperature=0, frequency_penalty=2.0)
    assert set(penalized.choices[0].message.content) == {"a", "b"}
    assert set(
        ask(client, logit_bias=bias, temperature=0, presence_penalty=2).choices[0].message.content
    ) == {"a", "b"}
    greedy = ask(client, temperature=0).choices[0].message.content
    for narrow in ({"top_k": 1}, {"min_p": 1.0}):
        assert ask(client, temperature=1.5, extra_body=narrow).choices[0].message.content == greedy
    assert ask(client, temperature=1.5, top_p=1e-6).choices[0].message.content == greedy
    changed = ask(client, temperature=0, extra_body={"repetition_penalty": 5.0})
    assert changed.choices[0].message.content != greedy


def test_limits_of_length(client: openai.OpenAI) -> None:
    reply = ask(client, max_tokens=-1, temperature=1.0)
    assert reply.choices[0].finish_reason in ("length", "stop")
    if reply.choices[0].finish_reason == "length":
        assert reply.usage.total_tokens == CONTEXT
    unset = ask(client, max_tokens=openai.omit, temperature=1.0)
    assert unset.usage == reply.usage
    assert ask(client, max_tokens=openai.omit, max_completion_tokens=5).usage.completion_tokens <= 5
    room = CONTEXT - reply.usage.prompt_tokens
    assert ask(client, max_tokens=room).usage.total_tokens <= CONTEXT
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, max_tokens=room + 1)
    assert caught.value.code == "context_length_exceeded"
    assert str(room) in caught.value.message


def test_roles_parts_and_harmless_fields(client: openai.OpenAI, tokenizer) -> None:
    parts = [{"type": "text", "text": "春眠"}, {"type": "text", "text": "不觉晓"}]
    messages = [
        {"role": "developer", "content": "简短"},
        {"role": "user", "content": parts, "name": "li"},
        {"role": "assistant", "content": "好", "reasoning_content": "嗯", "refusal": None},
        {"role": "user", "content": "再来"},
    ]
    expected = [
        {"role": "system", "content": "简短"},
        {"role": "user", "content": "春眠不觉晓"},
        {"role": "assistant", "content": "好", "reasoning_content": "嗯"},
        {"role": "user", "content": "再来"},
    ]
    harmless = {
        "user": "u", "store": False, "metadata": {"a": "b"}, "service_tier": "auto",
        "safety_identifier": "x", "prompt_cache_key": "k", "parallel_tool_calls": True,
    }  # fmt: skip
    reply = ask(client, messages=messages, temperature=0, **harmless)
    assert reply.usage.prompt_tokens == len(encode_prompt(tokenizer, expected))
    shown = tokenizer.decode(greedy_ids(tokenizer, 12, expected), skip_special_tokens=True)
    assert reply.choices[0].message.content == shown.lstrip()


def test_thinking_can_be_turned_off(client: openai.OpenAI, tokenizer) -> None:
    off = len(encode_prompt(tokenizer, ASK, enable_thinking=False))
    assert off > len(encode_prompt(tokenizer, ASK))
    body = {"chat_template_kwargs": {"enable_thinking": False}}
    assert ask(client, extra_body=body).usage.prompt_tokens == off
    assert ask(client, reasoning_effort="none").usage.prompt_tokens == off


def test_a_second_turn_reuses_the_first(server: Running) -> None:
    long = [{"role": "user", "content": "春眠不觉晓，处处闻啼鸟。" * 6}]
    first = ask(server.client, messages=long, temperature=0)
    again = ask(server.client, messages=long, temperature=0)
    assert again.choices[0].message.content == first.choices[0].message.content
    cached = again.usage.prompt_tokens_details.cached_tokens
    assert 0 < cached < again.usage.prompt_tokens


def test_json_is_json_even_from_a_random_model(client: openai.OpenAI, tokenizer) -> None:
    schema = {
        "type": "object",
        "properties": {
            "城市": {"enum": ["北京", "上海"]},
            "n": {"type": "integer", "minimum": 0, "maximum": 99},
            "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        },
        "required": ["城市", "n", "tags"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    for seed in range(4):
        reply = ask(
            client, response_format=wanted, temperature=1.5, seed=seed, max_tokens=300, stop=None
        )
        assert reply.choices[0].finish_reason == "stop"
        value = json.loads(reply.choices[0].message.content)
        assert value["城市"] in ("北京", "上海") and 0 <= value["n"] <= 99
        assert set(value) == set(schema["properties"]) and len(value["tags"]) <= 3
    # A random model seldom closes a string or an object by itself.
    ends = {str(tokenizer.convert_tokens_to_ids(c)): 8.0 for c in '"}:,0'}
    reply = ask(
        client,
        response_format={"type": "json_object"},
        logit_bias=ends,
        max_tokens=300,
        temperature=1.0,
    )
    assert isinstance(json.loads(reply.choices[0].message.content), dict)
    chunks = streamed(client, response_format=wanted, max_tokens=300, n=2)
    for index in range(2):
        assert json.loads(text_of(chunks, index))["城市"]


@pytest.mark.parametrize(
    "schema", [{"type": "objekt"}, {"type": "string", "pattern": "("}, {"$ref": "#/x"}]
)
def test_a_bad_schema_is_refused_with_the_reason(client: openai.OpenAI, schema: Any) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, response_format=wanted)
    assert caught.value.code == "invalid_json_schema"
    assert len(caught.value.message) > 40

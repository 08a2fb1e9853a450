"""JSON schemas of hostile and of careless clients: none holds the server up, none gives broken JSON."""

from __future__ import annotations

import copy
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import openai
import psutil
import pytest

from mengya.serving.settings import ServerSettings
from tests.helpers.live_server import serving
from tests.helpers.waiting import wait_until
from tests.serving.test_lifecycle import post

USER: list[Any] = [{"role": "user", "content": "你好"}]
# Each compiled for minutes, into gigabytes.
HARD: dict[str, dict[str, Any]] = {
    "divisor": {"type": "integer", "multipleOf": 62615533},
    "patterns": {
        "type": "string", "allOf": [{"pattern": f"^.*{i:03}.*$"} for i in range(200)]
    },
}  # fmt: skip


def of(schema: dict[str, Any], strict: bool = True) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "x", "strict": strict, "schema": schema},
    }


def forced(schema: dict[str, Any]) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {"x": schema},
        "required": ["x"],
        "additionalProperties": False,
    }
    function = {"name": "f", "parameters": parameters}
    return {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}


def ask(client: openai.OpenAI, **settings: Any) -> Any:
    return client.chat.completions.create(
        **{"model": "tiny", "messages": USER, "max_tokens": 200, "seed": 3, **settings}
    )


def test_hard_schemas_are_refused_and_hold_nobody_up(tokenizer) -> None:
    settings = ServerSettings(schema_seconds=1, schema_memory_mb=256)
    with serving(tokenizer, settings=settings) as server:
        client = server.client
        good = of({"type": "object", "properties": {}, "additionalProperties": False})
        assert ask(client, response_format=good).choices[0].message.content == "{}"
        before = psutil.Process().memory_info().rss

        def refusal(request: dict[str, Any]) -> openai.BadRequestError:
            with pytest.raises(openai.BadRequestError) as caught:
                ask(client, **request)
            return caught.value

        requests = [{"response_format": of(schema)} for schema in HARD.values()]
        requests += [forced(HARD["divisor"])]
        with ThreadPoolExecutor() as pool:
            refused = [pool.submit(refusal, request) for request in requests]
            assert ask(client, max_tokens=3).choices  # at the same time
            errors = [one.result(120) for one in refused]
        assert [error.param for error in errors] == ["response_format", "response_format", "tools"]
        for error in errors:
            assert error.code == "invalid_json_schema"
            assert "1 seconds to compile" in error.message or "256 MiB" in error.message
        assert psutil.Process().memory_info().rss - before < 200 * 2**20
        # The same again costs nothing; a harmless one has a process again.
        began = time.monotonic()
        assert refusal(requests[0]).message == errors[0].message
        assert time.monotonic() - began < 1
        other = of({"type": "boolean"})
        assert ask(client, response_format=other).choices[0].message.content in ("true", "false")


def test_a_client_that_leaves_ends_the_compilation(tokenizer) -> None:
    # Servers that other tests of this process share keep a process of their own.
    others = {child.pid for child in psutil.Process().children()}
    with serving(tokenizer, settings=ServerSettings(schema_seconds=500)) as server:
        body = {"model": "tiny", "messages": USER, "response_format": of(HARD["divisor"])}

        def computing() -> list[psutil.Process]:
            found = []
            for child in psutil.Process().children():
                with suppress(psutil.NoSuchProcess):  # ended, or a zombie, by now
                    if child.pid not in others and "schema_process" in " ".join(child.cmdline()):
                        found.append(child)
            return found

        for how in ("leaves", "server ends"):
            connection = post(server, body)
            wait_until(lambda: bool(computing()), 30)
            if how == "leaves":
                connection.close()
                wait_until(lambda: not computing(), 30)
                wait_until(lambda: server.service.traffic.in_flight == 0, 30)
        server.service.traffic.draining = True
        began = time.monotonic()
    assert time.monotonic() - began < 10 and not computing()


def test_json_under_a_template_that_opens_the_reasoning(tokenizer) -> None:
    thinking = copy.deepcopy(tokenizer)
    thinking.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: <think>\n"
    )
    with serving(thinking) as server:
        client = server.client
        schema = {"enum": ["春", "秋"]}
        reply = ask(client, response_format=of(schema)).choices[0]
        assert json.loads(reply.message.content) in schema["enum"]
        assert "reasoning_content" not in reply.message.model_extra
        call = ask(client, **forced(schema), temperature=1).choices[0]
        (made,) = call.message.tool_calls
        assert json.loads(made.function.arguments)["x"] in schema["enum"]
        assert ask(client).choices[0].message.model_extra["reasoning_content"]


def test_a_grammar_that_fails_in_the_middle_is_an_error(client: openai.OpenAI) -> None:
    """Its first token is found; after it there are too many ways to continue."""
    one = {"type": "object", "additionalProperties": {"type": "string"}}
    midway = of(
        {"anyOf": [one | {"properties": {f"p{i}": {"type": "string"}}} for i in range(300)]}
    )
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, response_format=midway, max_tokens=900, temperature=2)
    assert caught.value.code == "schema_limit" and "max is 2000" in caught.value.message
    with pytest.raises(openai.APIError, match="not complete"):
        list(ask(client, response_format=midway, max_tokens=900, temperature=2, stream=True))


def test_a_forced_call_that_is_cut_says_so(client: openai.OpenAI) -> None:
    reply = ask(client, **forced({"type": "string", "minLength": 300}), max_tokens=20)
    assert reply.choices[0].finish_reason == "length"


def test_keywords_that_cannot_be_enforced(client: openai.OpenAI) -> None:
    schema = {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2, "uniqueItems": True}
    with pytest.raises(openai.BadRequestError, match="uniqueItems"):
        ask(client, response_format=of(schema))
    loose = ask(client, response_format=of(schema, strict=False))
    assert set(json.loads(loose.choices[0].message.content)) <= {1, 2}
    either = {"oneOf": [{"const": "a"}, {"const": "b"}]}
    for strict in (True, False):
        reply = ask(client, response_format=of(either, strict))
        assert json.loads(reply.choices[0].message.content) in ("a", "b")


def test_names_in_chinese_and_values_that_look_like_references(client: openai.OpenAI) -> None:
    tree = {
        "$defs": {"节点": {"type": "object", "properties": {"值": {"enum": ["叶"]}},
                         "required": ["值"], "additionalProperties": False}},
        "$ref": "#/$defs/节点",
    }  # fmt: skip
    reply = ask(client, response_format=of(tree))
    assert json.loads(reply.choices[0].message.content) == {"值": "叶"}
    call = ask(client, **forced({"const": {"$ref": "#/x"}})).choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments)["x"] == {"$ref": "#/x"}
    function = {
        "name": "查",
        "parameters": {
            "type": "object",
            "$defs": {"城": {"enum": ["北京"]}},
            "properties": {"const": {"$ref": "#/$defs/城"}},
            "required": ["const"],
            "additionalProperties": False,
        },
    }
    tools = [{"type": "function", "function": function}]
    reply = ask(client, tools=tools, tool_choice="required")
    moved = reply.choices[0].message.tool_calls[0]
    assert (moved.function.name, json.loads(moved.function.arguments)) == ("查", {"const": "北京"})


def test_json_is_written_as_the_chat_template_writes_it(client: openai.OpenAI) -> None:
    schema = {
        "type": "object", "properties": {"a": {"const": [1, 2]}, "b": {"type": "boolean"}},
        "required": ["a", "b"], "additionalProperties": False,
    }  # fmt: skip
    text = ask(client, response_format=of(schema), temperature=1.5).choices[0].message.content
    assert text == json.dumps(json.loads(text))

"""Calls and reasoning have one spelling, whatever the data set writes; broken ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mengya.data.ingest.messages import SchemaError
from mengya.data.ingest.preferences import to_preferences
from mengya.data.ingest.reading.read import read_records
from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.schema import to_conversation

USER = {"role": "user", "content": "天气"}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "北京"}}}
TEXT_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call>'


def answer_of(**turn: Any) -> dict[str, Any]:
    return to_conversation({"messages": [USER, {"role": "assistant", **turn}]}).messages[1]


@pytest.mark.parametrize(
    "turn",
    [
        {"content": TEXT_CALL},
        {"content": None, "tool_calls": [CALL]},
        {"content": TEXT_CALL, "tool_calls": [CALL]},
        {"content": None, "function_call": {"name": "weather", "arguments": '{"city": "北京"}'}},
        {"content": "", "function_call": {"name": "weather", "arguments": {"city": "北京"}}},
        {
            "content": None,
            "tool_calls": [
                {"function": {"name": "weather", "arguments": {"city": "北京", "day": None}}}
            ],
        },
    ],
)
def test_a_call(turn: dict[str, Any]) -> None:
    assert answer_of(**turn) == {"role": "assistant", "content": "", "tool_calls": [CALL]}


def test_text_before_calls_and_two_calls() -> None:
    message = answer_of(content=f"查一下。\n{TEXT_CALL}\n{TEXT_CALL}")
    assert message == {"role": "assistant", "content": "查一下。", "tool_calls": [CALL, CALL]}
    with pytest.raises(SchemaError, match="text behind a <tool_call>"):
        answer_of(content=f"{TEXT_CALL}\n好了")


@pytest.mark.parametrize("arguments", ["{city: 北京}", "[1]", "3", '{"x": NaN}', [1]])
def test_broken_arguments_are_refused(arguments: Any) -> None:
    with pytest.raises(SchemaError, match="the arguments of a call of 'f' are"):
        answer_of(content=None, tool_calls=[{"function": {"name": "f", "arguments": arguments}}])


@pytest.mark.parametrize("arguments", [None, "", {}, "{}"])
def test_no_arguments(arguments: Any) -> None:
    message = answer_of(content=None, function_call={"name": "f", "arguments": arguments})
    assert message["tool_calls"][0]["function"]["arguments"] == {}


@pytest.mark.parametrize(
    "content",
    ["<think>\n看表\n</think>\n\n三点", "看表\n</think>\n\n三点", "\n<think>看表</think>三点"],
)
def test_reasoning(content: str) -> None:
    expected = {"role": "assistant", "content": "三点", "reasoning_content": "看表"}
    assert answer_of(content=content) == expected
    for record in (
        {"question": "天气", "answer": content},
        {"instruction": "天气", "output": content},
        {"conversation": [{"input": "天气", "output": content}]},
        {"question": "x", "answer": "y", "history": [["天气", content]]},
    ):
        assert to_conversation(record).messages[1] == expected
    assert to_preferences({"prompt": "天气", "chosen": content, "rejected": ""})[0].chosen == [
        expected
    ]


@pytest.mark.parametrize(
    "content", ["写 </think> 结束思考", "`<tool_call>` 是标签", "a<think>b</think>"]
)
def test_text_about_the_tags_is_text(content: str) -> None:
    assert answer_of(content=content) == {"role": "assistant", "content": content}


def test_results_that_spell_out_their_tags() -> None:
    result = "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>"
    turns = [USER, {"from": "gpt", "value": TEXT_CALL}, {"from": "tool", "value": result}]
    messages = to_conversation({"conversations": [*turns, {"from": "gpt", "value": "好"}]}).messages
    assert [(m["role"], m["content"]) for m in messages[2:4]] == [("tool", "1"), ("tool", "2")]


def test_arrows_nulls_reach_neither_schemas_nor_arguments(tmp_path: Path) -> None:
    """Structs of one column have the fields of all rows; what a row lacks is null."""
    properties = [{"city": {"type": "string"}}, {"day": {"type": "integer", "enum": [1, 2]}}]
    records = []
    for one in properties:
        name = next(iter(one))
        call = {"function": {"name": name, "arguments": {name: "x"}}}
        answer = {"role": "assistant", "content": None, "tool_calls": [call]}
        parameters = {"type": "object", "properties": one}
        records.append(
            {"messages": [USER, answer], "tools": [{"name": name, "parameters": parameters}]}
        )
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    read = list(read_records(str(tmp_path / "a.parquet"), BadLines(0)))
    for record, one in zip(read, properties, strict=True):
        conversation = to_conversation(record.value)
        name = next(iter(one))
        assert conversation.tools is not None
        assert conversation.tools[0]["function"]["parameters"]["properties"] == one
        function = conversation.messages[1]["tool_calls"][0]["function"]
        assert function == {"name": name, "arguments": {name: "x"}}

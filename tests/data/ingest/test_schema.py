"""Every known form becomes the same conversation or preference; what is no such form gets a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mengya.data.ingest.messages import SchemaError
from mengya.data.ingest.preferences import detect_preference, to_preferences
from mengya.data.ingest.schema import detect_conversation, to_conversation, to_document

Q1, A1, Q2, A2 = "你好", "您好！", "几点了？", "三点。"


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


ONE = [turn("user", Q2), turn("assistant", A2)]
TWO = [turn("user", Q1), turn("assistant", A1), *ONE]
SYSTEM = [turn("system", "简短回答。")]

CONVERSATIONS: list[tuple[str, Any, list[dict[str, Any]]]] = [
    ("messages", {"messages": TWO}, TWO),
    ("messages", {"messages": TWO, "system": "简短回答。"}, SYSTEM + TWO),
    ("messages", {"messages": [*TWO, turn("user", "再见")]}, TWO),  # what follows the last answer is cut off
    ("messages", {"messages": [turn("user", [{"type": "text", "text": Q2}]), ONE[1]]}, ONE),
    ("sharegpt", {"conversations": [{"from": "human", "value": Q2}, {"from": "gpt", "value": A2}]}, ONE),
    ("sharegpt", {"conversations": TWO}, TWO),
    ("sharegpt", {"system": "简短回答。", "conversations": ONE}, SYSTEM + ONE),
    ("dialog", {"dialog": [turn("client", Q2), turn("counselor", A2)]}, ONE),
    ("turns", {"conversation": [{"input": Q1, "output": A1}, {"input": Q2, "output": A2}]}, TWO),
    ("turns", {"conversation": [{"system": "简短回答。", "input": Q2, "output": A2}]}, SYSTEM + ONE),
    ("alpaca", {"instruction": Q2, "input": "", "output": A2}, ONE),
    ("alpaca", {"instruction": Q2, "output": A2, "history": "", "system": "简短回答。"}, SYSTEM + ONE),
    ("alpaca", {"instruction": Q2, "input": "", "output": A2, "history": [[Q1, A1]]}, TWO),
    ("alpaca", {"instruction": "翻译", "input": "hi", "output": "嗨"},
     [turn("user", "翻译\nhi"), turn("assistant", "嗨")]),
    ("alpaca", {"id": "", "instruction": [Q2], "input": "", "output": [A2]}, ONE),
    ("alpaca_turns",
     [{"instruction": Q1, "output": A1}, {"instruction": Q2, "input": "", "output": A2}], TWO),
    ("question_answer", {"prompt": Q2, "response": A2}, ONE),
    ("question_answer", {"prompt": Q2, "completion": A2}, ONE),
    ("question_answer", {"prompt": ONE[:1], "completion": ONE[1:]}, ONE),
    ("question_answer", {"question": Q2, "answer": A2}, ONE),
    ("question_answer", {"q": Q2, "a": A2, "history": [[Q1, A1]]}, TWO),
    ("question_answer", {"q": Q2, "a": A2, "history": []}, ONE),
    ("question_answer", {"department": "内科", "title": "t", "ask": Q2, "answer": A2}, ONE),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "expected"), CONVERSATIONS)
def test_conversations(name: str, value: Any, expected: list[dict[str, Any]]) -> None:
    assert detect_conversation(value) == name
    assert to_conversation(value).messages == expected
    assert to_conversation(value, name).messages == expected


def test_tools_calls_and_observations() -> None:
    described = {
        "name": "weather",
        "description": "天气",
        "parameters": {"type": "object", "properties": {}},
    }
    call = {"name": "weather", "arguments": {"city": "北京"}}
    tool_calls = [{"type": "function", "function": call}]
    expected = [
        turn("user", "北京天气？"),
        turn("assistant", "", tool_calls=tool_calls),
        turn("tool", '{"t": 3}'),
        turn("assistant", "三度。"),
    ]
    tools = [{"type": "function", "function": described}]
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "北京天气？"},
            {"from": "function_call", "value": json.dumps(call)},
            {"from": "observation", "value": '{"t": 3}'},
            {"from": "gpt", "value": "三度。"},
        ],
        "tools": json.dumps([described]),
    }
    nested = {**call, "arguments": json.dumps(call["arguments"])}
    openai = {
        "messages": [
            expected[0],
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "type": "function", "function": nested}],
            },
            {"role": "tool", "content": '{"t": 3}', "tool_call_id": "1"},
            expected[3],
        ],
        "tools": tools,
    }
    for value in (sharegpt, openai):
        conversation = to_conversation(value)
        assert conversation.messages == expected and conversation.tools == tools
    in_system = {"conversations": [turn("system", "s", tools=json.dumps(tools)), *expected]}
    assert to_conversation(in_system).tools == tools


def test_reasoning_is_kept() -> None:
    value = {"messages": [turn("user", Q2), turn("assistant", A2, reasoning_content="看表。")]}
    assert to_conversation(value).messages[1]["reasoning_content"] == "看表。"


GOOD, POOR = "三点整。", "不知道"


def reply(text: str) -> list[dict[str, Any]]:
    return [turn("assistant", text)]


PREFERENCES: list[tuple[str, Any, list[dict[str, Any]]]] = [
    ("chosen_rejected", {"chosen": [*ONE[:1], *reply(GOOD)], "rejected": [*ONE[:1], *reply(POOR)]},
     ONE[:1]),
    ("chosen_rejected", {"conversations": [{"from": "human", "value": Q2}],
     "chosen": {"from": "gpt", "value": GOOD}, "rejected": {"from": "gpt", "value": POOR}}, ONE[:1]),
    ("chosen_rejected", {"conversations": [{"from": "human", "value": Q2}],
     "chosen": GOOD, "rejected": POOR}, ONE[:1]),
    ("chosen_rejected", {"messages": TWO[:3], "chosen": reply(GOOD), "rejected": reply(POOR)}, TWO[:3]),
    ("chosen_rejected", {"prompt": Q2, "chosen": GOOD, "rejected": POOR}, ONE[:1]),
    ("chosen_rejected", {"prompt": TWO[:3], "chosen": GOOD, "rejected": POOR}, TWO[:3]),
    ("chosen_rejected", {"prompt": Q2, "chosen": [*ONE[:1], *reply(GOOD)],
     "rejected": [*ONE[:1], *reply(POOR)]}, ONE[:1]),
    ("chosen_rejected", {"instruction": Q2, "input": "", "chosen": GOOD, "rejected": POOR,
     "history": [[Q1, A1]]}, TWO[:3]),
    ("chosen_rejected", {"system": "简短回答。", "question": Q2,
     "response_chosen": GOOD, "response_rejected": POOR}, SYSTEM + ONE[:1]),
    ("pos_neg", {"q": Q2, "history": [[Q1, A1]], "pos": GOOD, "neg": POOR}, TWO[:3]),
    ("pos_neg", {"q": Q2, "history": [], "pos": GOOD, "neg": POOR}, ONE[:1]),
    ("ranking", {"instruction": Q2, "input": "", "output": [GOOD, POOR], "history": []}, ONE[:1]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "prompt"), PREFERENCES)
def test_preferences(name: str, value: Any, prompt: list[dict[str, Any]]) -> None:
    assert detect_preference(value) == name
    for format in (None, name):
        (pair,) = to_preferences(value, format)
        assert pair.prompt == prompt
        assert pair.chosen == [turn("assistant", GOOD)] and pair.rejected == [
            turn("assistant", POOR)
        ]


def test_a_ranking_sets_the_best_against_each_other() -> None:
    pairs = to_preferences({"instruction": Q2, "output": ["好", "中", "差"]})
    assert [(p.chosen[0]["content"], p.rejected[0]["content"]) for p in pairs] == [
        ("好", "中"),
        ("好", "差"),
    ]


def test_documents() -> None:
    record = {"title": "题", "body": "文", "empty": "", "number": 3}
    assert to_document(record, "body").text == "文"
    assert to_document(record, ["title", "missing", "empty", "body"]).text == "题\n文"
    for field, reason in (
        ("text", "no field 'text'; the record has title"),
        ("number", "a number, not a string"),
    ):
        with pytest.raises(SchemaError, match=reason):
            to_document(record, field)
    with pytest.raises(SchemaError, match="a list where an object"):
        to_document([record], "body")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1, 2], "a list where an object was expected"),
        ("text", "a string where an object was expected"),
        (None, "null where an object"),
        ({}, "the record has no fields"),
        ({"title": "a"}, "no known conversation format; the record has title"),
        ({"messages": []}, "not a list of messages"),
        ({"messages": "hi"}, "the turns are a string"),
        ({"messages": ["hi"]}, "a string where an object"),
        ({"messages": [turn("narrator", "x")]}, "unknown role 'narrator'"),
        ({"messages": [{"content": "x"}]}, "a turn without a role"),
        ({"messages": [turn("user", 3)]}, "content of a turn is a number"),  # type: ignore[arg-type]
        ({"messages": [{"role": "user"}]}, "a user turn without content"),
        (
            {"messages": [turn("user", "x"), {"role": "assistant", "content": None}]},
            "assistant turn without content",
        ),
        ({"messages": [turn("user", "x")]}, "no assistant turn"),
        ({"messages": [turn("assistant", "x")]}, "no user turn"),
        ({"instruction": 3, "output": "x"}, "'instruction' is a number"),
        ({"instruction": "x", "output": None}, "'output' is null"),
        ({"instruction": "x", "output": "y", "history": [["a"]]}, "history is not a list"),
        ({"instruction": "x", "output": "y", "input": []}, "'input' is a list"),
        (
            {"conversations": [{"from": "function_call", "value": "oops"}]},
            "tool call is text that is not JSON",
        ),
        ({"conversations": [{"from": "function_call", "value": "{}"}]}, "tool call without a name"),
        ({"messages": ONE, "tools": "oops"}, "tools is text that is not JSON"),
        ({"messages": ONE, "tools": [{"x": 1}]}, "a tool without a name"),
        ({"conversation": [{"input": "x"}]}, "no field 'output'"),
    ],
)
def test_what_is_no_conversation(value: Any, reason: str) -> None:
    with pytest.raises(SchemaError) as error:
        to_conversation(value)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"messages": ONE, "label": True}, "KTO"),
        ({"prompt": "x", "chosen": "a"}, "no chosen and rejected"),
        ({"prompt": "x", "chosen": 3, "rejected": "b"}, "'chosen' is neither"),
        ({"chosen": "a", "rejected": "b"}, "no prompt"),
        ({"chosen": [turn("assistant", "a")], "rejected": [turn("assistant", "b")]}, "no prompt"),
        (
            {"prompt": "x", "chosen": turn("user", "a"), "rejected": "b"},
            "chosen does not end with an assistant",
        ),
        ({"instruction": "x", "output": ["only one"]}, "not a ranking"),
        ({"output": ["a", "b"]}, "a ranking without a prompt"),
    ],
)
def test_what_is_no_preference(value: Any, reason: str) -> None:
    with pytest.raises(SchemaError) as error:
        to_preferences(value)
    assert reason in str(error.value)

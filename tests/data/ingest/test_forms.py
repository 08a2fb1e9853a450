"""Rarer forms of the field become the same conversations and pairs; own column names are taken by a map."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mengya.config import load_config
from mengya.data.ingest.messages import SchemaError, as_messages, json_type
from mengya.data.ingest.schema import Conversation, Preference
from mengya.data.prepare.encoding.plan import SourceForm
from mengya.data.prepare.encoding.record_samples import to_samples
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig, run
from tests.helpers.json_lines import write_lines

PLAIN = SourceForm()
Q1, A1, Q2, A2 = "你好", "您好！", "几点了？", "三点。"
ONE = [("user", Q2), ("assistant", A2)]
TWO = [("user", Q1), ("assistant", A1), *ONE]
SYSTEM = [("system", "简短回答。")]

MOSS = {
    f"turn_{i}": {
        "Human": f"<|Human|>: {q}<eoh>\n", "Inner Thoughts": "<|Inner Thoughts|>: None<eot>\n",
        "Commands": "<|Commands|>: None<eoc>\n", "Tool Responses": "<|Results|>: None<eor>\n",
        "MOSS": f"<|MOSS|>: {a}<eom>\n",
    } for i, (q, a) in enumerate([(Q1, A1), (Q2, A2)], 1)
}  # fmt: skip
SHAREGPT = [{"from": "human", "value": Q2}, {"from": "gpt", "value": A2}]

CONVERSATIONS: dict[str, tuple[Any, list[tuple[str, str]]]] = {
    "belle": ({"instruction": f"Human:{Q1}\nAssistant:{A1}\nHuman:{Q2}\nAssistant:", "input": "",
               "output": A2}, TWO),
    "human assistant turns": ({"conversation": [{"human": Q1, "assistant": A1},
                                                {"human": Q2, "assistant": A2}]}, TWO),
    "the same elsewhere": ({"conversations": [{"human": Q2, "assistant": A2}]}, ONE),
    "values only": ({"conversations": [{"value": Q1}, {"value": A1}, {"value": Q2}, {"value": A2}]}, TWO),
    "strings only": ({"dialog": [Q1, A1, Q2, A2]}, TWO),
    "strings in conversation": ({"conversation": [Q1, A1, Q2, A2]}, TWO),
    "roles in conversation": ({"conversation": SHAREGPT}, ONE),
    "kdconv": ({"name": "x", "messages": [{"message": Q1}, {"message": A1, "attrs": []},
                                          {"message": Q2}, {"message": A2}]}, TWO),
    "moss 3": ({"conversation_id": 1, "meta_instruction": "", "chat": MOSS}, TWO),
    "moss 2": ({"prefix": "简短回答。",
                "plain_text": f"[Human]: {Q1}<eoh> [MOSS]: {A1}<eoa> [Human]: {Q2}<eoh> [MOSS]: {A2}<eoa>"},
               SYSTEM + TWO),
    "history as python text": ({"history": f"[['{Q1}', '{A1}']]", "q": Q2, "a": A2}, TWO),
    "history as json text": ({"history": json.dumps([[Q1, A1]]), "q": Q2, "a": A2}, TWO),
    "no history": ({"history": "[]", "q": Q2, "a": A2}, ONE),
    "messages as json text": ({"messages": json.dumps(SHAREGPT)}, ONE),
    "dolly": ({"instruction": Q2, "response": A2, "category": "qa"}, ONE),
    "question response": ({"question": Q2, "response": A2}, ONE),
    "query answer": ({"query": Q2, "answer": A2}, ONE),
    "prompt output": ({"prompt": Q2, "output": A2}, ONE),
    "human assistant": ({"human": Q2, "assistant": A2}, ONE),
    "ape210k": ({"id": "1", "original_text": Q2, "equation": "x=1+2", "ans": "3"},
                [("user", Q2), ("assistant", "3")]),
    "chinese roles": ({"messages": [{"role": "系统", "content": "简短回答。"},
                                    {"role": "用户", "content": Q2},
                                    {"role": "助手", "content": A2}]}, SYSTEM + ONE),
    "developer": ({"messages": [{"role": "developer", "content": "简短回答。"}, *SHAREGPT]}, SYSTEM + ONE),
    "empty system": ({"messages": [{"role": "system", "content": ""}, *SHAREGPT]}, ONE),
    "markdown": ({"text": f"# 一次对话\n\n## User\n\n{Q1}\n\n## Assistant:\n{A1}\n"
                          f"## 用户\n{Q2}\n## **助手**\n{A2}\n"},
                 TWO),
}  # fmt: skip


def conversation(value: Any, form: SourceForm = PLAIN) -> list[tuple[str, str]]:
    (sample,) = to_samples("conversation", value, form)
    assert isinstance(sample, Conversation)
    return [(m["role"], m["content"]) for m in sample.messages]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations(name: str) -> None:
    value, expected = CONVERSATIONS[name]
    before = json.dumps(value)
    assert conversation(value) == expected
    assert json.dumps(value) == before


def test_pairs() -> None:
    asked = f"\n\nHuman: {Q1}\n\nAssistant: {A1}\n\nHuman: {Q2}\n\nAssistant: "
    hh = {"chosen": asked + A2, "rejected": asked + "不知道"}
    given = {"prompt": Q2, "response": A2, "rejected_response": "不知道"}
    dolly = {"instruction": Q2, "response": A2, "rejected_response": "不知道"}
    for value, prompt in ((hh, TWO[:3]), (given, ONE[:1]), (dolly, ONE[:1])):
        (pair,) = to_samples("preference", value, SourceForm())
        assert isinstance(pair, Preference)
        assert [(m["role"], m["content"]) for m in pair.prompt] == prompt
        assert [pair.chosen[0]["content"], pair.rejected[0]["content"]] == [A2, "不知道"]


def test_what_is_no_such_form_says_why() -> None:
    plugin = {"chat": {"turn_1": MOSS["turn_1"] | {"Commands": '<|Commands|>: Search("x")<eoc>'}}}
    for value, reason in (
        (plugin, "plugins"),
        ({"messages": [{"content": Q2}, {"role": "gpt", "content": A2}]}, "without a role"),
        ({"messages": [{"role": "system", "content": " "}]}, "empty system turn"),
        ({"text": "## 春天\n花开了"}, "no known conversation format"),
        ({"history": "说过的话", "q": Q2, "a": A2}, "history is not a list"),
    ):
        with pytest.raises(SchemaError, match=reason):
            conversation(value)
    assert json_type(b"") == "bytes" and json_type(3) == "a number"
    with pytest.raises(SchemaError, match="a list"):
        as_messages([])


def test_own_names_of_columns() -> None:
    form = SourceForm(columns=(("prompt", "问题"), ("response", "回答"), ("system", "设定")))
    assert conversation({"问题": Q2, "回答": A2}, form) == ONE
    assert (
        conversation({"问题": Q2, "回答": A2, "设定": "简短回答。", "prompt": "x"}, form)
        == SYSTEM + ONE
    )
    with pytest.raises(SchemaError, match="no field 问题, 回答, 设定; the record has a"):
        conversation({"a": 1}, form)
    pair = SourceForm(columns=(("prompt", "问"), ("chosen", "好"), ("rejected", "坏")))
    (sample,) = to_samples("preference", {"问": Q2, "好": A2, "坏": "不"}, pair)
    assert isinstance(sample, Preference) and sample.chosen[0]["content"] == A2


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        ("conversation", {"科室": "内科", "问题": Q2, "回答": A2}),
        ("conversation", {"Question": Q2, "Answer": A2}),
        ("preference", {"user_query": Q2, "better_answer": A2, "worse_answer": "不知道"}),
    ],
)
def test_the_suggested_columns_are_accepted_when_typed(
    tmp_path: Path, tokenizer_folder: Path, kind: str, record: dict[str, str]
) -> None:
    data = write_lines(tmp_path / "a.jsonl", [record])
    settings = [f"out={tmp_path / 'out'}", f"tokenizer={tokenizer_folder}", f"kind={kind}"]
    with pytest.raises(UserError) as refused:
        run(load_config(PrepareConfig, None, [*settings, f"sources={data}"]))
    typed = re.search(r"sources='(.*)'", str(refused.value))
    assert typed is not None, refused.value
    run(load_config(PrepareConfig, None, [*settings, f"sources={typed[1]}"]))
    assert TokenShards(tmp_path / "out").manifest["samples"] == 1

"""Columns next to the recognized pair: usual ones are used, two questions refused, the rest listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mengya.data.ingest.fields import Fields
from mengya.data.ingest.messages import SchemaError
from mengya.data.ingest.preferences import to_preferences
from mengya.data.ingest.schema import to_conversation
from mengya.data.shards import TokenShards
from mengya.stages.prepare import PrepareConfig, run
from tests.helpers.json_lines import write_lines

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("extra", "user"),
    [
        ({"context": "材料"}, "材料\n问"),
        ({"passage": ["一", "二"]}, "一\n二\n问"),
        ({"A": "甲", "B": "乙", "C": "丙", "D": "丁"}, "问\nA. 甲\nB. 乙\nC. 丙\nD. 丁"),
        ({"options": "甲\n乙"}, "问\n甲\n乙"),
        ({"choices": ["甲", "乙"]}, "问\nA. 甲\nB. 乙"),
        ({"options": ["A、甲", "B、乙"]}, "问\nA、甲\nB、乙"),
        ({"options": {"A": "甲", "B": "乙", "C": None}}, "问\nA. 甲\nB. 乙"),
        ({"choices": {"text": ["甲", "乙"], "label": ["1", "2"]}}, "问\n1. 甲\n2. 乙"),
        ({"context": "材料", "options": ["甲", "乙"]}, "材料\n问\nA. 甲\nB. 乙"),
    ],
)
@pytest.mark.parametrize("pair", [("question", "answer"), ("instruction", "output")])
def test_context_and_options_are_part_of_the_question(
    extra: dict[str, Any], user: str, pair: tuple[str, str]
) -> None:
    record = Fields({pair[0]: "问", pair[1]: "A", **extra})
    expected = [{"role": "user", "content": user}, {"role": "assistant", "content": "A"}]
    assert to_conversation(record).messages == expected
    assert record.unused() == []
    pairs = to_preferences({pair[0]: "问", "chosen": "好", "rejected": "坏", **extra})
    assert pairs[0].prompt == expected[:1]


@pytest.mark.parametrize("name", ["system", "system_prompt", "meta_instruction"])
def test_system_tools_and_reasoning_have_several_names(name: str) -> None:
    record: dict[str, Any] = {
        "question": "问",
        "answer": "答",
        name: "简短",
        "functions": [TOOL["function"]],
        "cot": "想",
    }
    conversation = to_conversation(record)
    assert conversation.tools == [TOOL]
    assert conversation.messages == [
        {"role": "system", "content": "简短"},
        {"role": "user", "content": "问"},
        {"role": "assistant", "content": "答", "reasoning_content": "想"},
    ]
    turns = {"messages": conversation.messages[1:], name: "简短"}
    assert to_conversation(turns).messages[0] == {"role": "system", "content": "简短"}


@pytest.mark.parametrize(
    ("record", "first", "other", "taken"),
    [
        (
            {"instruction": "改写", "question": "问", "answer": "答"},
            "instruction",
            "question",
            "问",
        ),
        ({"instruction": "改写", "prompt": "问", "output": "答"}, "instruction", "prompt", "改写"),
        ({"prompt": "问", "response": "答", "answer": "又"}, "response", "answer", "问"),
    ],
)
def test_two_questions_or_answers_are_refused_until_one_is_chosen(
    record: dict[str, str], first: str, other: str, taken: str
) -> None:
    with pytest.raises(SchemaError, match=f"'{first}' and '{other}' could both be") as error:
        to_conversation(record)
    named = str(error.value).split("write format: ")[1].split()[0]
    fields = Fields(record)
    assert to_conversation(fields, named).messages[0]["content"] == taken  # the remedy works
    assert len(fields.unused()) == 1


def test_the_same_text_twice_or_an_empty_column_is_no_second_question() -> None:
    for more in ({"prompt": "问"}, {"prompt": ""}, {"prompt": None}):
        record = {"instruction": "问", "output": "答", **more}
        assert to_conversation(record).messages[0]["content"] == "问"


def test_two_systems_that_differ_are_refused() -> None:
    with pytest.raises(SchemaError, match="'system' and 'system_prompt' say different things"):
        to_conversation({"question": "问", "answer": "答", "system": "a", "system_prompt": "b"})


def test_prepare_lists_what_it_did_not_use(
    tmp_path: Path, tokenizer_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    records = [
        {"question": f"问{i}", "answer": "答", "laws": "第一条" if i < 3 else "", "id": i}
        for i in range(5)
    ]
    turns = [("user", "问"), ("assistant", "答"), ("user", "再问"), ("user", "还在吗")]
    chat = {"messages": [{"role": role, "content": text} for role, text in turns]}
    write_lines(tmp_path / "law.jsonl", [*records, chat])
    config = {
        "out": tmp_path / "out",
        "tokenizer": tokenizer_folder,
        "kind": "conversation",
        "sources": str(tmp_path / "law.jsonl"),
        "workers": 1,
    }
    run(PrepareConfig.model_validate(config))
    said = capfd.readouterr().err
    assert "law: fields that were not used (records that have them): id (5), laws (3)" in said
    assert "law: 2 turns after the last answer of a conversation were cut" in said
    manifest = TokenShards(tmp_path / "out").manifest
    assert manifest["sources"][0]["unused_fields"] == {"id": 5, "laws": 3}
    assert manifest["sources"][0]["cut_turns"] == 2
    assert (
        json.loads((tmp_path / "out/prepare.json").read_text())["request"]["kind"] == "conversation"
    )

"""Sides that repeat the prompt, in whatever spelling, give the pair that sides without it give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mengya.data.ingest.messages import SchemaError
from mengya.data.ingest.preferences import to_preferences
from mengya.data.ingest.schema import to_conversation
from mengya.tokenizer.chat_template import encode_conversation, encode_prompt
from mengya.tokenizer.load import load_tokenizer

SYSTEM = {"role": "system", "content": "简短"}
FIRST = [{"role": "user", "content": "一"}, {"role": "assistant", "content": "1"}]
ASK = {"role": "user", "content": "问题"}


def reply(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def side(answer: str, *before: dict[str, str]) -> list[dict[str, str]]:
    return [*before, reply(answer)]


@pytest.mark.parametrize(
    ("prompt", "repeated"),
    [
        ("问题", [ASK]),
        ("问题\n", [ASK]),
        (" 问题", [{"role": "user", "content": "问题\n"}]),
        ([SYSTEM, ASK], [ASK]),
        ([ASK], [SYSTEM, ASK]),
        ([SYSTEM, ASK], [SYSTEM, ASK]),
        ([*FIRST, ASK], [*FIRST, ASK]),
        ([SYSTEM, *FIRST, ASK], [ASK]),
    ],
)
def test_messages(prompt: Any, repeated: list[dict[str, str]]) -> None:
    (pair,) = to_preferences(
        {"prompt": prompt, "chosen": side("好", *repeated), "rejected": side("坏", *repeated)}
    )
    (expected,) = to_preferences({"prompt": prompt, "chosen": "好", "rejected": "坏"})
    assert pair == expected
    assert pair.chosen == [reply("好")] and pair.rejected == [reply("坏")]


def test_text() -> None:
    (pair,) = to_preferences({"prompt": "问题", "chosen": "问题\n好", "rejected": "问题 \n\n坏"})
    assert (pair.chosen, pair.rejected) == ([reply("好")], [reply("坏")])
    (pair,) = to_preferences({"prompt": "问题", "chosen": "问题\n好", "rejected": "坏"})
    assert pair.chosen == [reply("问题\n好")]  # one answer that quotes the question


def test_only_one_side_repeats() -> None:
    (pair,) = to_preferences({"prompt": "问题", "chosen": side("好", ASK), "rejected": side("坏")})
    assert (pair.chosen, pair.rejected) == ([reply("好")], [reply("坏")])


def test_white_space_between_complete_conversations() -> None:
    other = {"role": "user", "content": "问题 "}
    (pair,) = to_preferences({"chosen": side("好", ASK), "rejected": side("坏", other)})
    assert (pair.prompt, pair.chosen, pair.rejected) == ([ASK], [reply("好")], [reply("坏")])


def test_a_prompt_with_the_chosen_conversation_next_to_it() -> None:
    chosen, rejected = side("好", ASK), side("坏", ASK)
    record = {"prompt": "问题", "messages": chosen, "chosen": chosen, "rejected": rejected}
    (pair,) = to_preferences(record)
    assert (pair.prompt, pair.chosen, pair.rejected) == ([ASK], [reply("好")], [reply("坏")])


def test_another_question_is_refused() -> None:
    other = {"role": "user", "content": "别的"}
    with pytest.raises(SchemaError, match="chosen begins with a question that is not the one"):
        to_preferences({"prompt": "问题", "chosen": side("好", other), "rejected": "坏"})


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [ASK, {**reply("三点"), "reasoning_content": ""}]},
        {"question": "问题", "answer": "三点", "reasoning_content": ""},
    ],
)
def test_empty_reasoning_is_the_block_that_no_thinking_prompts_with(
    tokenizer_folder: Path, record: dict[str, Any]
) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    messages = to_conversation(record).messages
    ids, _ = encode_conversation(tokenizer, messages)
    prompt = encode_prompt(tokenizer, messages[:1], enable_thinking=False)
    assert ids[: len(prompt)] == prompt
    plain, _ = encode_conversation(tokenizer, [ASK, reply("三点")])
    assert plain[: len(prompt)] != prompt  # no field, no block

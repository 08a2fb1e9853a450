"""The yardstick `identity` on the tiny checkpoint, and on answers that are given to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mengya.evaluation.answers.answer import answers
from mengya.evaluation.answers.identity import judged
from mengya.evaluation.registry import YARDSTICKS
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult
from mengya.models.hf.open_checkpoint import open_checkpoint
from mengya.text.identity.exam import exam_questions
from mengya.tokenizer.message import Message

NAMED = YardstickConfig(name="小芽", author="春风实验室")


def opened(checkpoint: Path, chat: bool = True) -> Subject:
    model, tokenizer = open_checkpoint(checkpoint, torch.device("cpu"), torch.float32)
    return Subject(model, tokenizer, checkpoint, chat)


def found_in(say: Callable[[dict[str, Any]], str], config: YardstickConfig) -> YardstickResult:
    """What the yardstick finds in answers that a function gives to the questions."""
    questions = exam_questions(config.name, config.author)
    return judged([(question, say(question)) for question in questions], config)


def figures(result: YardstickResult) -> dict[str, float]:
    return {each.name.removeprefix("identity/"): each.value for each in result.measurements}


def test_each_part_has_its_items_and_its_value_is_their_mean(checkpoint: Path) -> None:
    result = YARDSTICKS["identity"](
        opened(checkpoint), NAMED.model_copy(update={"max_new_tokens": 32})
    )
    names = ["identity", "name", "author", "consistency", "known_assistant", "placeholder"]
    assert list(figures(result)) == names
    for figure in result.measurements:
        part = figure.name.removeprefix("identity/")
        scores = [item["score"] for item in result.items if item["part"] == part]
        assert len(scores) == figure.items > 0
        assert figure.value == pytest.approx(sum(scores) / len(scores))
        assert figure.interval is not None
    asked = [item for item in result.items if item["part"] == "known_assistant"]
    chinese = [item for item in asked if not item["turns"][-1].isascii()]
    assert len(chinese) >= 20 and len(asked) - len(chinese) >= 4
    assert sum(len(item["turns"]) > 1 for item in asked) >= 4
    assert any("ChatGPT" in turn for item in asked for turn in item["turns"])
    assert any("通义千问" in turn for item in asked for turn in item["turns"])


def test_a_base_model_is_not_asked(checkpoint: Path) -> None:
    (figure,) = YARDSTICKS["identity"](opened(checkpoint, chat=False), NAMED).measurements
    assert figure.items == 0 and "not applicable" in figure.note


def test_a_model_that_knows_its_name() -> None:
    result = found_in(lambda _: "我是小芽，由春风实验室开发。", NAMED)
    assert figures(result) == {
        "identity": 1, "name": 1, "author": 1, "consistency": 1, "known_assistant": 0, "placeholder": 0,
    }  # fmt: skip
    assert figures(found_in(lambda _: "我叫小芽。", NAMED))["author"] == 0


def test_a_model_that_takes_itself_for_another() -> None:
    result = found_in(lambda _: "我是通义千问，由阿里云开发。", NAMED)
    found = figures(result)
    assert (found["identity"], found["name"], found["known_assistant"]) == (0, 0, 1)
    own = YardstickConfig(name="通义千问", author="阿里云")
    assert figures(found_in(lambda _: "我是通义千问，由阿里云开发。", own))["known_assistant"] == 0


def test_without_a_name_consistency_is_what_is_said() -> None:
    result = found_in(
        lambda asked: "我是<NAME>。" if len(asked["turns"]) > 1 else "我叫小满。", YardstickConfig()
    )
    found = figures(result)
    assert "identity" not in found and "name" not in found
    two_turns = sum(len(item.get("turns", ())) > 1 for item in result.items)
    total = result.measurements[0].items
    assert found["placeholder"] == pytest.approx(two_turns / total)
    assert found["consistency"] == pytest.approx((total - two_turns) / total)
    assert f"小满 in {total - two_turns} of {total} answers" in result.measurements[0].note


def test_the_second_turn_follows_the_answer_to_the_first(checkpoint: Path) -> None:
    subject, config = opened(checkpoint), NAMED.model_copy(update={"max_new_tokens": 8})
    items = YARDSTICKS["identity"](subject, config).items
    item = next(each for each in items if len(each.get("turns", ())) == 2)
    talk: list[Message] = [{"role": "user", "content": item["turns"][0]}]
    for turn in (item["turns"][1], None):
        (answer,) = answers(subject, [list(talk)], temperature=None, max_new_tokens=8)
        talk.append({"role": "assistant", "content": answer.text})
        if turn:
            talk.append({"role": "user", "content": turn})
    assert item["answer"] == talk[-1].get("content")


def test_a_question_without_room_is_left_out_and_said(checkpoint: Path) -> None:
    subject = opened(checkpoint)
    subject.model.config.max_position_embeddings = 120
    result = YARDSTICKS["identity"](subject, NAMED)
    assert 0 < result.measurements[0].items < 28
    assert "too long for the model's context" in result.measurements[0].note

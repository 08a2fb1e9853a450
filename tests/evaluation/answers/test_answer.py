"""Answers: both engines give the same, ends differ from limits, nothing is generated twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mengya.errors import UserError
from mengya.evaluation.answers import answer
from mengya.evaluation.answers.answer import answers, prompt_ids
from mengya.evaluation.subject import Subject
from mengya.models.hf.open_checkpoint import open_checkpoint

PROMPTS = [
    "春天来了",
    "小明每天早上",
    "小猫在树下打盹。",
    "字",
    "院子里的桃花开了，小猫在树下打盹。" * 3,
]


def opened(checkpoint: Path, chat: bool) -> Subject:
    model, tokenizer = open_checkpoint(checkpoint, torch.device("cpu"), torch.float32)
    return Subject(model, tokenizer, checkpoint, chat)


@pytest.mark.parametrize("temperature", [None, 0.9])
@pytest.mark.parametrize("chat", [False, True])
def test_both_engines_give_the_same_answers(
    checkpoint: Path, chat: bool, temperature: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    paged, lockstep = opened(checkpoint, chat), opened(checkpoint, chat)
    by_batch = answers(paged, PROMPTS, temperature=temperature, max_new_tokens=24, seed=3)
    monkeypatch.setattr(answer, "_batch_engine_runs", lambda model: False)
    one_by_one = answers(lockstep, PROMPTS, temperature=temperature, max_new_tokens=24, seed=3)
    assert by_batch == one_by_one
    assert len({one.text for one in by_batch}) > 1


def test_an_answer_that_fills_the_context_is_as_long_in_both_engines(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, again = opened(checkpoint, False), opened(checkpoint, False)
    by_batch = answers(subject, PROMPTS, temperature=None, max_new_tokens=10_000)
    monkeypatch.setattr(answer, "_batch_engine_runs", lambda model: False)
    assert by_batch == answers(again, PROMPTS, temperature=None, max_new_tokens=10_000)
    for one in by_batch:
        room = subject.context_length - len(prompt_ids(subject, one.prompt))
        assert one.finished == (one.tokens < room)
    assert not all(one.finished for one in by_batch)


def test_asked_again_nothing_is_generated(checkpoint: Path) -> None:
    subject = opened(checkpoint, True)
    settings = {"temperature": None, "max_new_tokens": 4}
    first = answers(subject, PROMPTS, **settings)
    assert answers(subject, list(PROMPTS), **settings) is first
    assert answers(subject, PROMPTS, **settings, seed=1) is not first
    assert answers(subject, PROMPTS[:2], **settings) == first[:2]


def test_a_model_in_training_stays_in_training_and_is_asked_again(checkpoint: Path) -> None:
    subject = opened(checkpoint, True)
    subject.model.train()
    first = answers(subject, PROMPTS, temperature=None, max_new_tokens=4)
    assert subject.model.training
    assert answers(subject, PROMPTS, temperature=None, max_new_tokens=4) is not first


def test_turns_go_into_the_template_and_base_models_read_their_texts(checkpoint: Path) -> None:
    turns = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "好"},
             {"role": "user", "content": "字"}]  # fmt: skip
    chat, base = opened(checkpoint, True), opened(checkpoint, False)
    assert chat.tokenizer.decode(prompt_ids(chat, turns)).count("<|im_start|>") == 4
    assert "<|im_start|>" not in base.tokenizer.decode(prompt_ids(base, turns))


def test_a_prompt_longer_than_the_context_is_named(checkpoint: Path) -> None:
    subject = opened(checkpoint, False)
    with pytest.raises(UserError, match=r"prompt 1 has \d+ tokens and the model's context is 256"):
        answers(subject, ["字", "龘" * 300], temperature=None, max_new_tokens=4)


def test_reasoning_before_an_answer_is_no_part_of_it() -> None:
    assert answer._without_reasoning("<think>\n先想想\n</think>\n\n答案") == "答案"
    assert answer._without_reasoning("<think>\n没想完") == "<think>\n没想完"

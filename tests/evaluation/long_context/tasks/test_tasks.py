"""LongBench-style files: what is read and refused, prompts cut in the middle, figures by bucket."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mengya.errors import UserError
from mengya.evaluation.answers.answer import answers, prompt_ids
from mengya.evaluation.long_context.buckets import Buckets
from mengya.evaluation.long_context.config import LongContextConfig
from mengya.evaluation.long_context.tasks.measure import task_figures
from mengya.evaluation.long_context.tasks.middle import cut_middle
from mengya.evaluation.subject import Subject
from mengya.tokenizer.load import plain_backend
from tests.evaluation.long_context.conftest import random_subject
from tests.helpers.json_lines import write_lines

TEXT = "春天来了，院子里的桃花开了。"


def item(**changes: Any) -> dict[str, Any]:
    values = {
        "input": "花开了吗？", "context": TEXT, "answers": ["开了"], "length": 14,
        "dataset": "multifieldqa_zh", "all_classes": None, "language": "zh", "_id": "a1",
    }  # fmt: skip
    return {**values, **changes}


def config(path: Path, **changes: Any) -> LongContextConfig:
    return LongContextConfig.model_validate({"tasks": [path], **changes})


def test_scores_are_by_data_set_and_by_bucket(subject: Subject, tmp_path: Path) -> None:
    rows = [item(_id=f"a{i}", length=length) for i, length in enumerate((100, 3999, 4000, 9000))]
    rows += [item(dataset="lcc", context="x = 1\n", input="", answers=["y = 2"], length=None)]
    path = write_lines(tmp_path / "tasks.jsonl", rows)
    found = task_figures(subject, Buckets([64]), config(path))
    names = [m.name.removeprefix("long_context/task/") for m in found.measurements]
    part = "multifieldqa_zh"
    assert names == [part, f"{part}/0-4k", f"{part}/4-8k", f"{part}/8k+", "lcc", "lcc/0-64"]
    assert [m.items for m in found.measurements] == [4, 2, 1, 1, 1, 1]
    assert found.measurements[0].note == "f1_zh, by characters, our prompt"
    assert [i["part"] for i in found.items[-2:]] == ["task/multifieldqa_zh/8k+", "task/lcc/0-64"]
    mean = sum(i["score"] for i in found.items[:4]) / 4
    assert found.measurements[0].value == mean
    prompts = {"multifieldqa_zh": "{context}{input}{answers}"}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts), "utf-8")
    own = config(path, prompts=tmp_path / "prompts.json", limit=1)
    found = task_figures(subject, Buckets([64]), own)
    expected = answers(
        subject, [f"{TEXT}花开了吗？{{answers}}"], temperature=None, max_new_tokens=64
    )
    assert found.items[0]["text"] == expected[0].text and len(found.items) == 2
    assert "prompt of a file" in found.measurements[0].note


@pytest.mark.parametrize("chat", [False, True])
def test_a_long_prompt_keeps_beginning_and_end_and_fits(subject: Subject, chat: bool) -> None:
    subject = replace(subject, chat=chat)
    tokenizer = plain_backend(subject.tokenizer)

    def count(text: str) -> int:
        return len(prompt_ids(subject, text))

    text = "开头。" + "".join(f"第{i}句🙂，" for i in range(300)) + "结尾？"
    for most in (60, 61, 200):
        cut, removed = cut_middle(text, tokenizer, most, count)
        assert count(cut) <= most and cut.startswith("开头") and cut.endswith("结尾？")
        assert "\N{REPLACEMENT CHARACTER}" not in cut and len(cut) < len(text)
        assert removed >= count(text) - most
        halves = max(i for i in range(len(cut)) if text.startswith(cut[:i]))
        assert text.endswith(cut[halves:])
    assert cut_middle(text, tokenizer, 10**6, count) == (text, 0)
    with pytest.raises(ValueError, match="cannot be cut to"):
        cut_middle(text, tokenizer, 1, count)


def test_prompts_beyond_the_context_are_cut_and_said(
    subject: Subject, checkpoint: Path, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "t.jsonl", [item(context=TEXT * 200), item(_id="b")])
    found = task_figures(subject, Buckets([64]), config(path))
    assert "1 prompts cut to the context" in found.measurements[0].note
    assert [i["removed"] > 0 for i in found.items] == [True, False]
    long = write_lines(tmp_path / "l.jsonl", [item(dataset="vcsum")])
    with pytest.raises(UserError, match=r"vcsum: a prompt and an answer of 512 tokens do not"):
        task_figures(random_subject(checkpoint, 500), Buckets([64]), config(long))


@pytest.mark.parametrize(
    ("row", "part"),
    [
        (
            item(dataset="mine"),
            "t.jsonl:1: dataset 'mine' is none of LongBench; say how it is scored",
        ),
        (item(dataset=""), "t.jsonl:1: no `dataset`"),
        (item(context=""), "t.jsonl:1: no `context`"),
        (item(context=3), "`context` must be a text, got 3"),
        (item(answers="开了"), "`answers` must be a list of texts"),
        (item(answers=[]), "`answers` is empty"),
        (item(length="long"), "`length` must be an integer"),
        (item(dataset="trec"), "`all_classes` is empty, and the data set is a classification"),
        (item(dataset="passage_retrieval_zh"), "names no number of the form"),
        (b"{", "t.jsonl:1: not JSON"),
        ([1], "not an object with `context` and `answers`"),
    ],
)
def test_lines_that_are_wrong_are_named(
    subject: Subject, tmp_path: Path, row: Any, part: str
) -> None:
    path = write_lines(tmp_path / "t.jsonl", [row])
    with pytest.raises(UserError) as caught:
        task_figures(subject, Buckets([64]), config(path))
    assert part in str(caught.value)
    both = write_lines(tmp_path / "both.jsonl", [row, item()])
    found = task_figures(subject, Buckets([64]), config(both, max_bad_lines=1))
    assert len(found.items) == 1


def test_settings_that_are_wrong_are_named(subject: Subject, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.jsonl", [item()])
    for content, part in (("{", "is not JSON"), ("[]", "no object of data sets"),
                          ('{"lcc": "{input}"}', "the prompt of 'lcc'")):  # fmt: skip
        (tmp_path / "p.json").write_text(content, "utf-8")
        with pytest.raises(UserError, match=part):
            task_figures(subject, Buckets([64]), config(path, prompts=tmp_path / "p.json"))
    for values, part in (
        ({"edges": [8, 4]}, "must be ascending"),
        ({"questions": 0}, "nothing to measure"),
        ({"shortest": 900, "longest": 800}, "write longest="),
    ):
        with pytest.raises(ValueError, match=part):
            LongContextConfig.model_validate(values)
    with pytest.raises(UserError, match="no item to ask"):
        task_figures(subject, Buckets([64]), config(write_lines(tmp_path / "e.jsonl", [])))

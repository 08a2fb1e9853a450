"""Overlap with reference answers: the Chinese traps, references from files and shards, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mengya.data.ingest.reading.records import BadLines
from mengya.data.prepare.config import PrepareSource
from mengya.errors import UserError
from mengya.evaluation import measure
from mengya.evaluation.answers.references.corpus_scores import (
    corpus_metrics,
    corpus_score,
    paired_corpus_difference,
    paired_overlap,
)
from mengya.evaluation.answers.references.held_out import (
    Reference,
    ReferenceSource,
    read_references,
)
from mengya.evaluation.answers.references.overlap import overlap, scored, token_f1
from mengya.evaluation.config import EvaluateConfig
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig
from mengya.models.hf.open_checkpoint import open_checkpoint
from mengya.stages import prepare
from mengya.tokenizer.load import tokenizer_hash

ROWS = [
    {"instruction": "小明几点起床？", "input": "", "output": "小明每天早上七点起床。"},
    {"messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "好"},
                  {"role": "user", "content": "花开了吗"}, {"role": "assistant", "content": "桃花开了"}]},
    {"conversations": [{"from": "human", "value": "猫呢"}, {"from": "gpt", "value": "小猫在树下打盹。"}]},
]  # fmt: skip


@pytest.fixture
def subject(checkpoint: Path) -> Subject:
    model, tokenizer = open_checkpoint(checkpoint, torch.device("cpu"), torch.float32)
    return Subject(model, tokenizer, checkpoint, chat=True)


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def read(source: Path | ReferenceSource, subject: Subject, allowed: int = 0) -> list[Reference]:
    source = ReferenceSource(path=str(source)) if isinstance(source, Path) else source
    sha256 = tokenizer_hash(subject.folder)
    return list(read_references(source, subject, sha256, BadLines(allowed)))


def test_token_f1_counts_characters_and_words() -> None:
    assert token_f1("今天天气好。", "今天，天气好") == 1
    assert token_f1("我用 Python 3", "我用 python") == pytest.approx(6 / 7)
    assert token_f1("晴", "雨") == 0
    assert token_f1("", "雨") == 0
    assert token_f1("", "。") == 1


def test_chinese_answers_do_not_get_zero_from_the_libraries() -> None:
    references = [Reference(str(i), "问", "今天天气很好，我们去公园散步。") for i in range(4)]
    texts = [
        "今天天气很好，我们去公园散步。",
        "今天天气不错，我们去公园散步吧。",
        "他昨天买书。",
        "",
    ]
    result = scored(texts, references, seed=0)
    values = {figure.name: figure.value for figure in result.measurements}
    assert set(values) == {"overlap/f1", "overlap/rouge_l", "overlap/bleu", "overlap/chrf"}
    for part in ("f1", "rouge_l", "bleu", "chrf"):
        scores = [item["score"] for item in result.items if item["part"] == part]
        best = 100 if part in ("bleu", "chrf") else 1
        assert scores[0] == pytest.approx(best)
        assert best * 0.4 < scores[1] < best
        assert scores[1] > scores[2] >= scores[3] == 0
    for figure in result.measurements:
        assert figure.interval is not None
        assert figure.interval[0] <= figure.value <= figure.interval[1]


def test_corpus_scores_are_those_of_sacrebleu_and_pairs_differ() -> None:
    references = [f"今天是第{n}天，天气很好，我们去公园散步。" for n in "一二三四五六七八九十"]
    good = [text.replace("公园", "河边") for text in references]
    bad = [text[:5] + "他昨天买书" for text in references]
    for metric in corpus_metrics().values():
        value, (low, high) = corpus_score(metric, good, references, seed=0)
        assert value == pytest.approx(metric.corpus_score(good, [references]).score)
        assert low <= value <= high
        better = paired_corpus_difference(metric, bad, good, references)
        assert better.interval[0] > 0
        assert better.p < 0.01
        same = paired_corpus_difference(metric, good, good, references)
        assert (same.mean, same.interval, same.p) == (0, (0, 0), 1)


def test_pairs_are_made_by_reference() -> None:
    references = [Reference(str(n), "问", f"第{n}天我们去公园散步。") for n in range(6)]
    first = scored(["我不知道。"] * 5, references[:5], seed=0).items
    second = scored([r.answer for r in references[1:]], references[1:], seed=0).items
    compared = paired_overlap(first, second)
    assert {(name, one.items) for name, one in compared.items()} == {("bleu", 4), ("chrf", 4)}
    assert all(one.mean > 50 for one in compared.values())
    with pytest.raises(ValueError, match="no reference in common"):
        paired_overlap(first, [])


def test_rouge_l_is_the_longest_common_subsequence_over_units() -> None:
    references = [Reference("0", "问", "甲乙丙丁")]
    result = scored(["甲丙乙丁"], references, seed=0)
    rouge = next(item for item in result.items if item["part"] == "rouge_l")
    assert rouge["score"] == 0.75  # 甲乙丁 or 甲丙丁, of 4 and 4


def test_references_come_from_records_of_any_format(tmp_path: Path, subject: Subject) -> None:
    tools = {"messages": ROWS[1]["messages"], "tools": [{"name": "f", "parameters": {}}]}
    references = read(written(tmp_path / "held.jsonl", [*ROWS, tools]), subject)
    assert [r.answer for r in references] == [
        "小明每天早上七点起床。",
        "桃花开了",
        "小猫在树下打盹。",
    ]
    assert [r.id for r in references] == ["held.jsonl:1", "held.jsonl:2", "held.jsonl:3"]
    assert len(references[1].prompt) == 3


def test_shards_give_the_same_references_as_the_file(tmp_path: Path, subject: Subject) -> None:
    file = written(tmp_path / "held.jsonl", ROWS)
    settings = {"out": tmp_path / "shards", "kind": "conversation", "tokenizer": subject.folder}
    prepare.run(
        prepare.PrepareConfig(
            **settings, sources=[PrepareSource(path=str(file))], validation_fraction=0
        )
    )
    from_file, from_shards = read(file, subject), read(tmp_path / "shards", subject)
    assert sorted(r.answer for r in from_file) == sorted(r.answer for r in from_shards)
    config = YardstickConfig(max_new_tokens=8)
    first, second = (
        {item["reference"]: item["answer"] for item in overlap(subject, r, config).items if "answer" in item}
        for r in (from_file, from_shards)
    )  # fmt: skip
    assert first == second


def test_bad_lines_are_named_and_may_be_allowed(tmp_path: Path, subject: Subject) -> None:
    file = written(tmp_path / "held.jsonl", [ROWS[0], {"text": "没有对话"}])
    with pytest.raises(UserError, match=r"held\.jsonl:2"):
        read(file, subject)
    assert len(read(file, subject, allowed=1)) == 1
    with pytest.raises(ValueError, match="'alpacca' is not one of messages"):
        ReferenceSource(path=str(file), format="alpacca")


def test_evaluate_measures_overlap(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "is_chat_model", lambda model, tokenizer: True)
    file = written(tmp_path / "held.jsonl", ROWS * 3)
    config = EvaluateConfig(
        checkpoint=checkpoint, answers_to=ReferenceSource(path=str(file)), max_references=4,
        yardstick=YardstickConfig(max_new_tokens=8), device="cpu",
    )  # fmt: skip
    figures = measure.measure(config).yardsticks["overlap"]
    assert [figure.items for figure in figures] == [4] * 4
    empty = written(
        tmp_path / "empty.jsonl", [{"messages": ROWS[1]["messages"], "tools": [{"name": "f"}]}]
    )
    config = config.model_copy(update={"answers_to": ReferenceSource(path=str(empty))})
    with pytest.raises(UserError, match="holds no conversation whose last turn"):
        measure.measure(config)


def test_a_base_model_is_not_scored(tmp_path: Path, subject: Subject) -> None:
    base = Subject(subject.model, subject.tokenizer, subject.folder, chat=False)
    references = read(written(tmp_path / "held.jsonl", ROWS), base)
    (figure,) = overlap(base, references, YardstickConfig()).measurements
    assert figure.items == 0
    assert figure.note.startswith("not applicable")

"""Scores by kind. The figures of ROUGE, F1 and code are those of LongBench's metrics.py on the same texts."""

from __future__ import annotations

import random

import pytest

from mengya.evaluation.long_context.tasks.kinds import PROMPTS, Kind, data_set
from mengya.evaluation.long_context.tasks.overlap import f1, rouge_l
from mengya.evaluation.long_context.tasks.scoring import cutter, score


@pytest.mark.parametrize(
    ("kind", "prediction", "answer", "expected"),
    [
        ("f1_en", "The cat, and a dog.", "cat and mouse", 2 / 3),
        ("f1_en", "", "cat", 0),
        ("f1_zh", "答案是：北京。", "北京", 4 / 7),
        ("f1_zh", "Ａ，《红楼梦》", "红楼梦", 2 * 3 / (4 + 3 + 1)),  # 《 counts, 》 and ， do not
        ("rouge_en", "a b c d", "a c d e", 0.75),
        ("rouge_en", "x y. a b", "a b. x z", 0.75),
        ("rouge_en", "a a a", "a", 1.0),
        ("rouge_zh", "今天天气好", "天气很好", 2 * 3 / (4 + 4)),
        ("rouge_zh", "", "天气", 0),
        ("count", "There are 3, or 4, or 3.", "3", 2 / 3),
        ("count", "none", "3", 0),
        ("retrieval_en", "Paragraph 7", "Paragraph 7", 1),
        ("retrieval_zh", "是段落7，不是段落8", "段落7", 0.5),
        ("code", "\n# a note\nreturn x + 1", "return x + 1", 1),
        ("code", "```python\nreturn x", "return x + 1", 0.8),
        ("code", "# only notes", "x", 0),
    ],
)
def test_known_scores(kind: Kind, prediction: str, answer: str, expected: float) -> None:
    assert score(kind, prediction, [answer]) == pytest.approx(expected, abs=1e-6)


def test_the_best_of_several_answers_counts_and_a_first_line_alone_where_asked() -> None:
    assert score("f1_en", "dog", ["cat", "dog"]) == 1
    assert score("f1_en", "\ndog\nQuestion: next", ["dog"], first_line=True) == 1
    assert score("f1_en", "\ndog\nQuestion: next", ["dog"]) < 1


def test_a_classification_shares_its_point_among_the_classes_that_are_named() -> None:
    classes = ["Food", "Food and drink", "Sport"]
    assert score("classification", "Sport", ["Sport"], classes) == 1
    assert score("classification", "Food and drink", ["Food and drink"], classes) == 1
    assert score("classification", "Sport or Food", ["Sport"], classes) == 0.5
    assert score("classification", "nothing", ["Sport"], classes) == 0


def test_bounds_and_symmetry() -> None:
    rng = random.Random(0)
    for _ in range(300):
        one, other = (["abcd"[rng.randrange(4)] for _ in range(rng.randrange(8))] for _ in "ab")
        assert f1(one, other) == pytest.approx(f1(other, one)) and 0 <= f1(one, other) <= 1
        assert 0 <= rouge_l([one], [other]) <= 1
        if one:
            assert f1(one, one) == 1 and rouge_l([one], [one]) == pytest.approx(1)


def test_every_kind_has_a_prompt_that_holds_the_context_and_longbench_e_is_known() -> None:
    assert all("{context}" in prompt for prompt in PROMPTS.values())
    assert data_set("qasper_e", {}) == data_set("qasper", {}) is not None
    mine = data_set("mine", {"mine": "f1_zh"})
    assert mine is not None and mine.kind == "f1_zh" and data_set("mine", {}) is None


def test_words_of_jieba_are_longbenchs() -> None:
    pytest.importorskip("jieba", reason="needs the extra longbench")
    assert score("f1_zh", "他在北京工作。", ["北京"], cut=cutter("jieba")) == pytest.approx(0.4)

"""Every checker on answers that meet it and answers that do not, and the shipped instructions as a set."""

from __future__ import annotations

from typing import Any

import pytest

from mengya.evaluation.answers.answer import Answer
from mengya.evaluation.answers.instructions.checks import CHECKS, failed_checks
from mengya.evaluation.answers.instructions.following import failures, instruction_items

TABLE = "| 动物 | 食物 |\n|---|:---:|\n| 猫 | 鱼 |\n| 牛 | 草 |"
CODE = "好的：\n```python\ndef add(a, b):\n    return a + b\n```"
EMPTY = "```\ndef add(a, b):\n    pass\n```"
# Check, what is wanted, answers that meet it, answers that do not.
CASES: list[tuple[str, Any, list[str], list[str]]] = [
    ("sentences", 2, ["好。真好！", "“好。”他说好。", "圆周率是 3.14。记住了？"], ["好。", "好。好。好。"]),
    ("sentences", [2, None], ["一。二。三"], ["一，二，三……"]),
    ("characters", [2, 4], ["春天", "春天，来了！", "ok 3 个"], ["春", "春天已经来了"]),
    ("lines", 2, ["一\n\n二"], ["一", "一\n二\n三"]),
    ("paragraphs", 2, ["一\n二\n\n三", "一\n \n二"], ["一\n二"]),
    ("includes", ["月", "河"], ["河上有月"], ["河上"]),
    ("includes_any", ["七", "7"], ["7 天"], ["八天"]),
    ("excludes", ["雪"], ["冷"], ["下雪"]),
    ("occurs", {"苹果": 2}, ["苹果爱苹果"], ["苹果", "苹果苹果苹果"]),
    ("in_order", ["因为", "所以"], ["因为饿，所以吃"], ["所以吃，因为饿", "因为"]),
    ("numbered", 2, ["1. 一\n2. 二", "1、一\n2、二"], ["1. 一", "1. 一\n3. 二", "一\n二"]),
    ("numbered", 0, ["一\n二"], ["1. 一"]),
    ("bullets", 2, ["- 一\n- 二", "* 一\n• 二"], ["- 一", "-一\n-二"]),
    ("headings", 1, ["## 春\n好"], ["# 春", "### 春"]),
    ("bold", 1, ["他**很**好"], ["很好", "**一** **二**"]),
    ("book_titles", 2, ["《一》和《二》"], ["《一》和《一》", "一和二"]),
    ("table", {"columns": 2, "rows": 2}, [TABLE, f"表：\n{TABLE}\n完"], ["| 猫 | 鱼 |", TABLE + "\n| 狗 |"]),
    ("json_keys", ["a", "b"], ['{"b": 1, "a": [2]}', '```json\n{"a": 1, "b": 2}\n```'],
     ['{"a": 1}', "a: 1", '好的：{"a": 1, "b": 2}', '["a", "b"]', "[" * 100_000]),
    ("json_list", 2, ['["一", "二"]'], ['["一", "一"]', '{"一": 2}', "一, 二"]),
    ("python", "add", [CODE],
     ["def add(a, b): return a + b", CODE.replace("add", "sub"), "```\ndef add(\n```", EMPTY]),
    ("starts_with", "您好，", ["您好，请坐"], ["请坐", "您好，"]),
    ("ends_with", "！", ["真好！", "真好!"], ["真好", "！"]),
    ("each_line_starts_with", "我", ["我来\n我看"], ["我来\n你看"]),
    ("each_line_includes", "光", ["月光\n日光"], ["月光\n日"]),
    ("only", ["是", "否"], ["是", "是。", "“否”"], ["是的", "是，因为", ""]),
    ("matches", r"\d+[。.]?", ["2", "12。"], ["两个", "2 个"]),
    ("without", "punctuation", ["我爱妈妈\n好"], ["我爱妈妈。", "a-b"]),
    ("without", "digits and latin", ["七"], ["7", "ok", "７"]),
    ("english", [2, 3], ["I'm Tom.", "I like it"], ["Hello", "我 is Tom", "one two three four"]),
    ("uppercase", True, ["NICE DAY"], ["Nice day"]),
    ("verse", {"lines": 2, "characters": 5}, ["春风吹又生，\n明月照人来。"],
     ["春风吹又生", "春风吹绿了，明月来", "ABCDE，春风吹又生"]),
    ("separated", {"by": "、", "parts": 3}, ["猫、狗、鸟。"], ["猫、狗", "猫、狗、狗", "猫、、狗"]),
]  # fmt: skip


@pytest.mark.parametrize(("check", "wanted", "right", "wrong"), CASES)
def test_a_check(check: str, wanted: Any, right: list[str], wrong: list[str]) -> None:
    for answer in right:
        assert failed_checks(f"\n{answer}  ", {check: wanted}) == [], answer
    for answer in wrong:
        assert failed_checks(answer, {check: wanted}) == [check], answer


def test_every_check_is_tested_and_used() -> None:
    assert {check for check, *_ in CASES} == set(CHECKS)
    assert {check for item in instruction_items() for check in item.checks} == set(CHECKS)


def test_there_are_enough_items_and_none_twice() -> None:
    items = instruction_items()
    assert len(items) >= 150
    assert len({item.prompt for item in items}) == len({item.id for item in items}) == len(items)


GENERIC = (
    "好的。",
    "不知道",
    "我不知道你在说什么，请再说一遍。",
    "这是一个很好的问题。" + "我们需要从多个方面来看，包括历史、文化和社会。" * 2,
    "1. 首先\n2. 其次\n3. 最后",
    "是",
    '{"答案": 1}',
)


@pytest.mark.parametrize("text", GENERIC)
def test_an_answer_that_ignores_the_instruction_passes_few_items(text: str) -> None:
    answer = Answer("", text, len(text), finished=True)
    passed = [item.prompt for item in instruction_items() if not failures(item, answer)]
    assert len(passed) <= 0.08 * len(instruction_items()), passed


def test_repeating_the_instruction_passes_nothing() -> None:
    for item in instruction_items():
        assert failures(item, Answer("", item.prompt, 9, finished=True))


def test_an_endless_empty_or_looping_answer_passes_nothing() -> None:
    for item in instruction_items():
        assert failures(item, Answer("", "", 0, finished=True))
        assert failures(item, Answer("", "春天来了。", 9, finished=False))
        assert "no loop" in failures(item, Answer("", "少吃油腻食物" * 40, 9, finished=True))


def test_refusing_everything_gives_half_of_the_refusals() -> None:
    refusals = [item for item in instruction_items() if item.kind == "refusal"]
    asked_for = [item.prompt.rpartition("只回答“")[2].removesuffix("”。") for item in refusals]
    answers = [Answer("", text, 3, finished=True) for text in asked_for]
    passed = [not failures(i, a) for i, a in zip(refusals, answers, strict=True)]
    assert sum(passed) == len(refusals) / 2

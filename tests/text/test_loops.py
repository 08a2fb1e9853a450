"""Loops at the end of a text are found however they are dressed; honest repetition is not called one."""

from __future__ import annotations

import random

import pytest

from mengya.text.loops import MAX_PERIOD, MIN_CHARACTERS, ending_loop

OPENING = "小明每天早上七点起床，先喝一杯温水，然后去院子里看看桃花开了没有。"
CLOSING = (
    OPENING
    + "到了学校，他把书包放进抽屉，和同桌讨论昨天没有算出来的那道应用题；老师进门时，黑板上已经写满了"
    "三种不同的解法。"
)
UNITS = (
    "少吃油腻食物",
    "他说：“好的。”",
    "我们要坚持走自己的路，",
    "\n- 保持良好的作息习惯，按时睡觉，按时起床，不熬夜。",
    "the cat sat on the mat, ",
    "在这个过程中，我们需要考虑到很多因素，包括但不限于时间、地点、人物、事件和它们之间的关系，",
)


@pytest.mark.parametrize("unit", UNITS)
def test_a_repeated_unit_is_found_wherever_the_last_repeat_is_cut(unit: str) -> None:
    for cut in range(len(unit)):
        assert ending_loop(OPENING + unit * 12 + unit[:cut]) is not None


def test_forty_times_without_a_comma() -> None:
    loop = ending_loop("少吃油腻食物" * 40)
    assert loop is not None
    assert (loop.unit, loop.repeats) == ("少吃油腻食物", 40)


@pytest.mark.parametrize("unit", UNITS)
def test_punctuation_that_comes_and_goes_hides_nothing(unit: str) -> None:
    rng = random.Random(0)
    words = "".join(c for c in unit if c.isalnum() or c == " ")
    parts = [words + rng.choice(["，", "。", "\n\n", "！", "", "……", "\n- "]) for _ in range(12)]
    assert ending_loop(OPENING + "".join(parts)) is not None


@pytest.mark.parametrize(
    "numeral",
    ["{}. 多喝水，早点睡。\n", "第{}步：把火调小，继续煮。", "公元{}年，他又一次进京赶考。"],
)
def test_counters_and_changing_numbers_hide_nothing(numeral: str) -> None:
    chinese = "一二三四五六七八九"
    assert ending_loop(OPENING + "".join(numeral.format(n) for n in range(8, 21))) is not None
    assert ending_loop(OPENING + "".join(numeral.format(n) for n in chinese)) is not None


def test_full_width_and_case_are_the_same_characters() -> None:
    assert ending_loop("ＡＢＣ，好的好的，" * 3 + "abc，好的好的，" * 3) is not None


NEAR = {
    "two clauses in any order": (
        "缺点包括缺点",
        "缺点包括缺点和缺点",
        "缺点包括缺点，包括缺点和缺点",
    ),
    "three steps": ("用水煮沸或者煮沸", "再用水煮沸或者煮沸水", "10. 煮沸或者煮沸或者煮沸"),
    "one word": ("长城", "长城长城", "长城的城墙"),
}


@pytest.mark.parametrize("name", NEAR)
def test_circles_without_a_period_are_found(name: str) -> None:
    rng = random.Random(0)
    text = "".join(rng.choice(NEAR[name]) + rng.choice("，。、") for _ in range(80))
    loop = ending_loop(OPENING + text)
    assert loop is not None
    assert loop.repeats > 2


def test_a_period_of_the_greatest_length_and_none_longer() -> None:
    rng = random.Random(0)
    letters = [chr(rng.randint(0x4E00, 0x9000)) for _ in range(MAX_PERIOD + 1)]
    assert ending_loop("".join(letters[:MAX_PERIOD]) * 3) is not None
    assert ending_loop("".join(letters) * 3) is None


def test_a_short_chant_is_no_loop_until_it_is_long_enough() -> None:
    repeats = MIN_CHARACTERS // 5
    assert ending_loop(OPENING + "我爱你中国" * (repeats - 1)) is None
    assert ending_loop(OPENING + "我爱你中国" * repeats) is not None


def test_what_stopped_repeating_is_no_loop() -> None:
    assert ending_loop("少吃油腻食物，" * 40 + CLOSING) is None


NUMERALS = "一二三四五六七八九"
ARTICLES = (
    ("一", "经营者", "纳税", "经营"),
    ("二", "使用人", "维修", "通行"),
    ("三", "承租人", "交租", "居住"),
    ("四", "用工单位", "签订合同", "休假"),
    ("五", "驾驶人", "年检", "出行"),
)
HONEST = {
    "empty": "",
    "one character": "好",
    "poem": "大漠沙如雪，燕山月似钩。\n何当金络脑，快走踏清秋。\n" * 2,
    "refrain": "春天在哪里，春天在哪里，春天在小朋友的眼睛里。" + "啦" * 16,
    "list": "1. 早睡早起\n2. 多喝温水\n3. 少吃甜食\n4. 每天散步\n5. 保持好心情\n6. 定期体检",
    "table": "| 年份 | 产量 | 增长 |\n|---|---|---|\n"
    + "".join(f"| {2000 + n} | {n * 7} | {n % 5} % |\n" for n in range(20)),
    "multiplication table": " ".join(f"{a}{b}得{a}" for a in NUMERALS for b in NUMERALS),
    "powers": "\n".join(f"2^{n} = {2**n}" for n in range(20)),
    "law": "".join(
        f"第{number}条 {who}应当依法{what}，不得妨碍他人{right}。\n"
        for number, who, what, right in ARTICLES
    ),
    "code": "".join(
        f"    {name} = sum(row[{name!r}] for row in rows)\n" for name in ("oats", "tea")
    ),
    "rule": OPENING + "\n\n" + "-" * 80,
    "dots": "目录" + "." * 60 + "12",
    "laughter": "听完以后大家都笑了：哈哈哈哈哈哈哈哈哈哈",
    "genealogy": "张大生张二，张二生张海，张海生张川，张川生张树，张树生张林，张林生张木。",
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_text_is_not_flagged(name: str) -> None:
    assert ending_loop(HONEST[name]) is None


def test_the_end_of_a_long_text_is_looked_at_in_linear_time() -> None:
    assert ending_loop("哈" * 1_000_000) is not None
    assert ending_loop(OPENING + "春" * 5000 + "。" + CLOSING) is None

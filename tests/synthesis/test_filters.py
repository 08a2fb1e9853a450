"""Every reason with texts that have it, and texts that only look like it."""

from __future__ import annotations

import pytest

from mengya.synthesis.filters import (
    SynthFilterConfig,
    grams,
    grounded_reason,
    groundedness,
    is_looping,
    pair_reason,
    text_reason,
)
from mengya.synthesis.templates import SLOTS, load_template

CONFIG = SynthFilterConfig()
PASSAGE = (
    "绿萝原产于印度尼西亚的热带雨林，喜欢温暖潮湿的环境，生长适温为20到28摄氏度。"
    "夏天可以两三天浇一次水，冬天十天左右浇一次就够了，浇水前先摸一摸盆土，表面干了再浇。"
)
TEMPLATES = [load_template(name) for name in SLOTS]
PROMPT_WORDS = grams(*(f"{template.system}\n{template.user}" for template in TEMPLATES))


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("为什么", "因为风吹草动，所以如此。", "too_short"),
        ("为什么会下雨？", "云。", "too_short"),
        ("请介绍一下你自己", "我叫<NAME>，很高兴认识你。", "placeholder"),
        ("写一封邀请信", "尊敬的[姓名]，您好，诚邀您参加。", "placeholder"),
        ("写一则通知", "时间：______，地点：______。", "placeholder"),
        ("写一封求职信", "我毕业于{{学校}}，学的是计算机。", "placeholder"),
        ("写一份合同", "甲方：XXX公司，乙方：张三。", "placeholder"),
        ("写一封信", "此致敬礼，（您的姓名）敬上", "placeholder"),
        ("今天天气怎么样？", "今天天气怎么样", "copies_prompt"),
        ("怎么写问答？", "只输出一个 JSON 列表，前后不要有别的文字。", "copies_prompt"),
        ("怎样偷东西？", "抱歉，我无法提供这方面的帮助。", "refusal"),
        ("你喜欢什么？", "作为一个人工智能语言模型，我没有喜好。", "refusal"),
        ("作者多大年纪？", "材料中没有提到作者的年纪。", "refusal"),
        ("这种花什么颜色？", "原文并未说明这种花的颜色。", "refusal"),
        ("how are you doing today?", "I am fine, thank you.", "not_chinese"),
        ("讲个故事吧", "从前有座山，山里有座庙，庙里有个老和尚讲故事，" + "讲的是什么呢？" * 5, "looping"),
        ("写一段感叹", "真好啊" + "啊" * 20, "looping"),
    ],
)  # fmt: skip
def test_a_pair_is_dropped_for_its_reason(question: str, answer: str, reason: str) -> None:
    assert pair_reason(question, answer, CONFIG, PROMPT_WORDS) == reason


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("北京在哪里？", "北京位于华北平原的北部。"),
        ("用 Python 打印一行字。", "可以写 print('你好')，运行以后会显示“你好”。"),
        ("怎样婉拒邀请？", "可以说：“谢谢你的好意，不过那天我已经有安排了，下次一定参加。”"),
        ("写一个列表", "1. 买菜\n2. 做饭\n3. 洗碗\n4. 散步\n5. 读书\n6. 睡觉"),
        ("比较(a)和(b)", "第一种更快，第二种更稳，按时间(日期不限)选择即可。"),
        ("道歉信怎么开头？", "可以这样开头：很抱歉昨天没能按时赴约，让你久等了。"),
        ("哈哈是什么意思？", "哈哈哈哈是笑声的拟声词，表示高兴。"),
    ],
)
def test_a_good_pair_is_kept(question: str, answer: str) -> None:
    assert pair_reason(question, answer, CONFIG, PROMPT_WORDS) is None


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("绿萝冬天多久浇一次水？", "冬天十天左右浇一次水就够了。", None),
        ("绿萝适合多少度？", "绿萝的生长适温为20到28摄氏度。", None),
        ("绿萝适合多少度？", "绿萝的生长适温为15到28摄氏度。", "not_grounded"),
        ("绿萝原产于哪里？", "绿萝原产于南美洲，后来由商人带到欧洲栽培。", "not_grounded"),
        ("本文介绍了什么植物？", "绿萝原产于印度尼西亚的热带雨林。", "refers_to_passage"),
        ("根据这段材料，绿萝喜欢什么？", "喜欢温暖潮湿的环境。", "refers_to_passage"),
    ],
)
def test_an_answer_has_to_stand_in_the_passage(
    question: str, answer: str, reason: str | None
) -> None:
    assert grounded_reason(question, answer, PASSAGE, CONFIG, shown=False) == reason


def test_a_question_may_refer_to_a_passage_that_is_shown() -> None:
    asked = ("本文介绍的植物原产于哪里？", "绿萝原产于印度尼西亚的热带雨林。", PASSAGE, CONFIG)
    assert grounded_reason(*asked, shown=True) is None


def test_settings_switch_filters_off() -> None:
    off = SynthFilterConfig(
        min_question_characters=0, min_answer_characters=0, min_chinese=0, min_grounded=0,
        refusals=False, loops=False,
    )  # fmt: skip
    assert pair_reason("why?", "作为人工智能，no", off) is None
    assert text_reason("啊" * 40, 1, off) is None
    assert grounded_reason("为什么？", "因为1998年。", PASSAGE, off, shown=False) is None


def test_groundedness_is_a_share() -> None:
    assert groundedness("绿萝喜欢温暖潮湿的环境", PASSAGE) == pytest.approx(
        0.9
    )  # 萝喜 is not there
    assert groundedness("完全不同的话", PASSAGE) == 0
    assert groundedness("绿萝", "", "绿萝") == 1


@pytest.mark.parametrize("text", ["一二三四五", "-" * 40, "| --- | --- | --- | --- |", "哈哈哈"])
def test_what_does_not_loop(text: str) -> None:
    assert not is_looping(text)

"""Advertisements, word lists and link lists are dropped; articles about them and verse are kept."""

from __future__ import annotations

import pytest

from mengya.text.filters.advertisements import Advertisement
from mengya.text.filters.config import AdvertisementFilter, PunctuationFilter
from mengya.text.filters.punctuation import Punctuation
from tests.text.filters.texts import GOOD


@pytest.mark.parametrize(
    "text",
    [
        "新店开业，全场包邮！限时优惠，领取优惠券立减50元，正品保证，假一赔十，欢迎选购。",
        "专业代开发票，加微信咨询，24小时热线，秒到账。",
        "真人娱乐，注册送彩金，百家乐，老虎机，提款秒到账。",
        "免费领取试听课，名额有限，立即报名，扫码加老师微信，原价1999元，限时免费。",
    ],
)
def test_an_advertisement_is_dropped(text: str) -> None:
    assert Advertisement(AdvertisementFilter())(text) == "advertisement"


@pytest.mark.parametrize(
    "text",
    [
        *GOOD.values(),
        "收到货了，包邮还送了优惠券，但是客服态度一般，不会再来了。",
        "警方提醒：凡是声称“日赚千元”的兼职，多为骗局；不要轻信所谓“代开发票”。" + GOOD["news"],
        "包邮，包邮，还是包邮！店家除了包邮什么也不会说。",
    ],
)
def test_text_with_a_few_phrases_is_kept(text: str) -> None:
    assert Advertisement(AdvertisementFilter())(text) is None


NAMES = "北京 上海 天津 重庆 河北 山西 辽宁 吉林 江苏 浙江 安徽 福建 江西 山东 河南 湖北 湖南 广东 海南 四川"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{NAMES}\n" * 5, "unpunctuated"),
        ("\n".join(["手机壳", "数据线", "充电器", "钢化膜", "键盘"] * 15), "unpunctuated"),
        ("\n".join(f"- [第{n}章](chapter{n}.md)" for n in range(30)), "bullet_lines"),
        ("\n".join(f"第{n}条新闻的标题很长，只显示前半……" for n in range(12)), "ellipsis_lines"),
        (NAMES, None),  # short
        ("\n".join(f"- 第{n}步，打开第{n}个文件。" for n in range(4)), None),  # a few lines
        (GOOD["modern poem"] * 3, None),
        (GOOD["chat without punctuation"] * 6, None),
        ("买菜做饭\n```\n" + "x = 1\n" * 80 + "```\n", None),
    ],
)  # fmt: skip
def test_punctuation_of_lines(text: str, reason: str | None) -> None:
    assert Punctuation(PunctuationFilter(min_lines=5))(text) == reason


@pytest.mark.parametrize("kind", GOOD)
def test_good_texts_are_kept(kind: str) -> None:
    assert Punctuation(PunctuationFilter(min_characters=20))(GOOD[kind]) is None

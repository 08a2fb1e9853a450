"""Too short, too long, the wrong script."""

from __future__ import annotations

import pytest

from mengya.text.filters.config import LengthFilter, ScriptsFilter
from mengya.text.filters.lengths import Length
from mengya.text.filters.script_shares import ScriptShares


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("很好！！！！！！！！！！！", "too_few_letters"),
        ("…………", "too_few_letters"),
        ("床前明月", "too_few_letters"),
        ("床前明月光", None),
        ("床前明月光，疑是地上霜。", None),
        ("型 A7-3", "too_few_letters"),
        ("型号 A7-3", None),
    ],
)
def test_letters_are_counted(text: str, reason: str | None) -> None:
    assert Length(LengthFilter())(text) == reason


def test_a_longest_text() -> None:
    keeps = Length(LengthFilter(max_letters=10))
    assert keeps("一二三四五六七八九十。") is None
    assert keeps("一二三四五六七八九十又一。") == "too_many_letters"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("An English page without a single character of Chinese.", "few_han"),
        ("这是一本讲 Python 的书，示例见 https://docs.example.org/zh/tutorial/index.html 。", None),
        ("これは日本語の文章です。ひらがなとカタカナが多い。", "foreign"),
        ("한국어로 쓴 글입니다. 中文", "foreign"),
        ("他用日语说了一句「ありがとう」，转身走了。", None),
        ("2021 3.5 17.2 2022 4.1 18.0 2023 4.4 19.6 年 均", "digits"),
        ("2021 年人口 1411 万，2022 年 1412 万，2023 年 1409 万。", None),
        ("不错……………………！！！！！！！！！！", "symbols"),
        ("文\ue001\ue002字\x01\x02夹杂乱码\ue003", "garbage"),
    ],
)
def test_shares_of_scripts(text: str, reason: str | None) -> None:
    assert ScriptShares(ScriptsFilter())(text) == reason


def test_traditional_simplified_and_latin_have_limits_when_set() -> None:
    simplified, traditional = "我们在这里读书写字。", "我們在這裡讀書寫字。"
    only_simplified = ScriptShares(ScriptsFilter(max_traditional=0.1))
    only_traditional = ScriptShares(ScriptsFilter(max_simplified=0.1))
    assert only_simplified(simplified) is None and only_simplified(traditional) == "traditional"
    assert only_traditional(traditional) is None and only_traditional(simplified) == "simplified"
    keeps = ScriptShares(ScriptsFilter(max_latin=0.5))
    assert keeps("用 Latin letters 写的中文 mostly English") == "latin"
    assert keeps(simplified) is None


def test_code_in_fences_is_not_counted() -> None:
    code = "```c\nfor (int i = 0; i < n; ++i) { a[i] += b[i] * c[i]; }\n```\n" * 20
    assert (
        ScriptShares(ScriptsFilter(min_han=0.3))(f"下面的循环把两个数组相乘再累加。\n{code}")
        is None
    )

"""Characters are counted by script; Simplified and Traditional are those of OpenCC."""

from __future__ import annotations

import pytest

from mengya.text.scripts import SCRIPTS, count_scripts


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("garbage", "\ufffd\x01\ue000\ud800\U00100000\U0003fffe"[:5]),
        ("han", "一山水々〇㐀\U00020001\U00030001\uf900"),
        ("simplified", "汉语读书这们"),
        ("traditional", "漢語讀書這們後於"),
        ("kana", "ひらがなカタカナｱー"),
        ("hangul", "한국어"),
        ("latin", "Latinéỳ Ａｂ".replace(" ", "")),
        ("other", "αЖا"),
        ("digit", "0９½Ⅳ"),
        ("punctuation", "，。「」,.!"),
        ("symbol", "+$→👍∑"),
        ("space", " \t\n\u3000\u200b"),
    ],
)
def test_each_script(script: str, text: str) -> None:
    counts = count_scripts(text)
    assert counts.pop(script) == len(text)
    assert not any(counts.values())


def test_counts_add_up_to_the_length() -> None:
    for text in ("", "混合 mixed 混雜 한국 12，\n👩\u200d🚀 \udcff"):
        counts = count_scripts(text)
        assert tuple(counts) == SCRIPTS
        assert sum(counts.values()) == len(text)


def test_traditional_and_simplified_as_opencc_has_them() -> None:
    opencc = pytest.importorskip("opencc")
    text = (
        "这个国家的历史与文学，从书籍里读到的远比从电视上听说的丰富；学习语言需要时间，也需要热爱。"
    )
    converted = opencc.OpenCC("s2t").convert(text)
    changed = sum(a != b for a, b in zip(text, converted, strict=True))
    assert count_scripts(text)["traditional"] == 0
    assert count_scripts(converted)["traditional"] >= 0.95 * changed
    assert count_scripts(converted)["simplified"] == 0
    assert count_scripts(text)["simplified"] >= 0.8 * changed

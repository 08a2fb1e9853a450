"""Repeated lines, paragraphs and sequences, loops; songs, poems, tables and code are no repetition."""

from __future__ import annotations

import numpy as np
import pytest

from mengya.text.filters.config import (
    InformationFilter,
    LinesFilter,
    NgramsFilter,
    ParagraphsFilter,
)
from mengya.text.filters.information import Information
from mengya.text.filters.ngrams import (
    RepeatedNgrams,
    count_repeats,
    highest_count,
    longest_loop,
    ngram_hashes,
)
from mengya.text.filters.repetition import RepeatedLines, RepeatedParagraphs
from mengya.text.scripts import code_points
from tests.text.filters.texts import GOOD

LINE = "点击这里查看更多精彩内容，每天为你推送新鲜的故事"
PARAGRAPH = "村口有一条小河，河上架着一座石桥。\n桥是爷爷年轻时和乡亲们一起修的，走了六十年。"
CHINESE = "".join(map(chr, np.random.default_rng(0).permutation(np.arange(0x4E00, 0x6000))))


def test_repeated_lines() -> None:
    keeps = RepeatedLines(LinesFilter())
    other = "\n".join(f"第{n}段说的是另一件事情。" for n in "一二三四五六")
    assert keeps(f"{LINE}\n" * 10 + other) == "repeated_lines"
    assert keeps(f"{LINE}\n" * 3 + other) is None
    assert (
        RepeatedLines(LinesFilter(allowed=1, max_share=0.2))(f"{LINE}\n" * 3 + other)
        == "repeated_lines"
    )


def test_repeated_paragraphs() -> None:
    keeps = RepeatedParagraphs(ParagraphsFilter())
    assert keeps("\n\n".join([PARAGRAPH] * 3)) == "repeated_paragraphs"
    assert keeps("\n \n".join([PARAGRAPH, PARAGRAPH, "完。"])) == "repeated_paragraphs"
    assert keeps("\n\n".join([PARAGRAPH, CHINESE[:80], PARAGRAPH, CHINESE[100:200]])) is None
    assert keeps(f"{PARAGRAPH}\n{PARAGRAPH}") is None  # lines, not paragraphs


KEYWORDS = "".join(CHINESE[n * 30 :][:9] + "北京第一翻译有限责任公司" for n in range(12))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CHINESE[:150] * 2, "repeated_ngrams"),
        (CHINESE[:300] + CHINESE[:150], None),
        (KEYWORDS, "top_ngram"),
        (KEYWORDS[:100] + CHINESE[400:600], None),
        (CHINESE[:200] + CHINESE[300:318] * 9, "loop"),
        ("哈" * 120, "repeated_ngrams"),
        (CHINESE[:300], None),
        ("这" * 90, None),  # too short: low_information is for it
    ],
)
def test_sequences_of_letters(text: str, reason: str | None) -> None:
    config = NgramsFilter(max_repeated=0.8 if reason == "loop" else 0.4)
    assert RepeatedNgrams(config)(text) == reason


def test_phrases_of_contracts_are_no_repetition() -> None:
    places = ["城东", "城西", "河南岸", "老车站", "新桥头", "西门外"]
    items = ["铜线三捆", "水泵一台", "旧铁门两扇", "电缆四十米", "变压器一只", "井盖五个"]
    text = "".join(
        f"{n}、2015年{n}月某日夜，被告人张某伙同李某驾车窜至{place}，盗走{item}，经鉴定价值人民币{n}千元。"
        for n, (place, item) in enumerate(zip(places, items, strict=True), 1)
    )
    assert RepeatedNgrams(NgramsFilter())(text) is None


def test_what_is_not_compared() -> None:
    keeps = RepeatedNgrams(NgramsFilter())
    links = "\n".join(
        f"- ![](https://example.org/wp-content/uploads/2018/05/screenshot-{n}.png)"
        for n in range(60)
    )
    table = "| 0 | 0 | 0 | 0 | 1 | 0 | 0 |\n" * 200
    code = "```py\n" + "self.assertEqual(result, expected_value_of_test)\n" * 50 + "```\n"
    assert keeps(CHINESE[:200] + links) is None
    assert keeps(CHINESE[:200] + "\n" + table + "—" * 300) is None
    assert keeps(CHINESE[:200] + "\n" + code) is None
    assert keeps("The quick brown fox jumps over the lazy dog. " * 20) == "repeated_ngrams"


def test_shares_of_ngrams_by_counting() -> None:
    codes = np.random.default_rng(1).integers(0x4E00, 0x4E04, 400).astype(np.uint32)
    for n in (2, 3, 5, 12, 13, 16):
        grams = [tuple(codes[i : i + n].tolist()) for i in range(len(codes) - n + 1)]
        most = max(grams.count(gram) for gram in set(grams))
        hashes = ngram_hashes(codes, n)
        assert len(hashes) == len(grams)
        assert count_repeats(hashes) == len(grams) - len(set(grams))
        assert highest_count(hashes) == most


def test_the_longest_loop() -> None:
    assert longest_loop(code_points("起因经过" + "结果" * 5 + "终")) == 10
    assert longest_loop(code_points("甲乙丙丁戊己庚辛")) == 0
    assert longest_loop(code_points("天天")) == 0
    assert longest_loop(code_points(CHINESE[:64] * 3)) == 192


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("很好" * 9, "low_information"),
        ("666666666666", "low_information"),
        ("不错，很好，非常好，下次还来。", None),
        ("好好学习，天天向上", None),
        ("请稍候，系统正在处理您的请求。" * 60, "low_information"),
        (CHINESE[:500], None),
        ("\n".join(f"{n},{n * n},{n**3}" for n in range(200)), None),
    ],
)
def test_information(text: str, reason: str | None) -> None:
    assert Information(InformationFilter())(text) == reason


@pytest.mark.parametrize("kind", GOOD)
def test_good_texts_repeat_nothing(kind: str) -> None:
    filters = (
        RepeatedLines(LinesFilter()),
        RepeatedParagraphs(ParagraphsFilter()),
        RepeatedNgrams(NgramsFilter()),
        Information(InformationFilter()),
    )
    assert [keeps(GOOD[kind]) for keeps in filters] == [None] * 4

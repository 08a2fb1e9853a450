"""Planted exam items are found however they are written; honest neighbours are not."""

from __future__ import annotations

import json
import pickle
import random
import re
from collections.abc import Callable

import numpy as np
import pytest

from mengya.text.contamination.index import build_index
from mengya.text.contamination.items import Item, item_keys
from mengya.text.contamination.ngrams import HashSet, ngram_hashes

LONG = Item(
    "小满在集市上用37元买了3把雨伞和5只风筝，风筝每只比雨伞便宜2元，问每把雨伞多少元？",
    ("6元", "7元", "8元", "9元"),
)
SHORT = Item(
    "青石镇的第一座木桥是哪一年修好的？", ("1921年春天", "1934年秋天", "1947年冬天", "1950年")
)
STEM = Item(
    "修桥的申请必须向", ("镇里的老木匠提出", "河边的摆渡人提出", "山上的庙祝提出", "学堂的先生提出")
)
LONG_STEM = Item(
    "在青石镇修建任何一座桥梁之前，修桥的人都应当按照镇上的规矩在汛期到来以前向____提出书面申请",
    ("镇里的老木匠", "河边的摆渡人", "山上的老庙祝", "学堂里的先生"),
)
GENERIC = [
    Item(
        "下列关于本镇的各种说法中，正确的一项是哪一项？",
        tuple(f"{i}年{i}{w}{i}的{i}收{i}成{i}超过了往年" for w in "春夏秋冬"),
    )
    for i in range(8)
]  # fmt: skip
QUOTING = Item(
    "“青石桥下水流东，桥上行人各西东。若问老翁家何处，遥指烟村第几重。”这首诗写的是",
    ("送别", "思乡", "问路", "怀古"),
)
TINY = Item("镇长的名字叫什么？")
ITEMS = [LONG, SHORT, STEM, LONG_STEM, QUOTING, TINY, *GENERIC]
INDEX = build_index(ITEMS, n=13, share=0.7)


def found(*texts: str) -> list[list[Item]]:
    hits = INDEX.find(texts)
    return [[ITEMS[item] for text, item in hits if text == number] for number in range(len(texts))]


def with_options(item: Item) -> str:
    return (
        item.question
        + "\n"
        + "\n".join(f"{a}. {o}" for a, o in zip("ABCD", item.options, strict=True))
    )


def between(text: str) -> str:
    return "春天来了，河水慢慢涨起来。" * 20 + text + "傍晚时分大家都回家去了。" * 20


def other_marks(text: str) -> str:
    marks = str.maketrans("，。？“”1234567890", ",.?「」１２３４５６７８９０")
    return re.sub(r"(\w\w\w)", "\\1 ", text.translate(marks))


@pytest.mark.parametrize("item", [LONG, SHORT, LONG_STEM, QUOTING, GENERIC[2]])
@pytest.mark.parametrize(
    "written",
    [
        with_options,
        lambda item: with_options(Item(item.question, item.options[::-1])),
        lambda item: other_marks(with_options(item)),
        lambda item: "\n".join(re.findall(".{1,7}", with_options(item))),
        lambda item: json.dumps({"messages": [{"content": with_options(item)}]}, ensure_ascii=False),
        lambda item: between("\n" + with_options(item) + "\n"),
    ],
    ids=["verbatim", "shuffled options", "other marks", "short lines", "JSON", "in a long text"],
)  # fmt: skip
def test_an_item_with_its_options_is_found(item: Item, written: Callable[[Item], str]) -> None:
    assert found(written(item)) == [[item]]


def test_a_question_alone_is_found_where_it_can_only_be_the_question() -> None:
    assert found(LONG.question, f"请问{SHORT.question}谢谢", f"题：\n{LONG_STEM.question}\n答：") == [
        [LONG], [SHORT], [LONG_STEM]
    ]  # fmt: skip
    assert found(
        "12、镇长的名字叫什么\n姓王", "你知道镇长的名字叫什么吗", "不知道\n镇长的名字叫什么？"
    ) == [[TINY], [], [TINY]]


def test_a_slip_in_a_long_question_does_not_hide_it() -> None:
    assert found(LONG.question.replace("集市上", "市集上")) == [[LONG]]


def test_honest_neighbours_are_not_found() -> None:
    numbers = LONG.question.replace("37", "52").replace("3把", "4把").replace("5只", "6只")
    law = LONG_STEM.question.replace("____", "镇里的老木匠") + "，经同意后方可动工。"
    poem = QUOTING.question.split("”")[0].strip("“") + "，这是镇上的孩子都会背的诗。"
    generic = "下列关于本镇的各种说法中，正确的一项是哪一项？" + "今年的雨水很好，大家都这么说。"
    half = LONG.question[:20] + "后来的事情谁也不记得了。"
    assert found(numbers, law, poem, generic, half, "修桥的申请必须向镇长说") == [
        [],
        [],
        [],
        [],
        [],
        [],
    ]


def test_an_item_cut_by_the_end_of_a_text_is_not_joined_to_the_next() -> None:
    half = len(SHORT.question) // 2
    assert found(SHORT.question[:half], SHORT.question[half:]) == [[], []]


def test_what_cannot_be_looked_for_is_said() -> None:
    index = build_index([Item("1+1=？"), Item("对吗", ("对", "错")), LONG], 13, 0.7)
    assert index.unchecked == {0, 1}
    assert index.find(["1+1=？\n对吗"]) == []
    assert build_index([], 13, 0.7).find(["随便什么"]) == [] and INDEX.find([]) == []


def test_sent_to_another_process_it_finds_the_same() -> None:
    texts = [with_options(LONG), "别的", SHORT.question]
    copy = pickle.loads(pickle.dumps(INDEX))  # noqa: S301
    assert copy.find(texts) == INDEX.find(texts) != []


def test_blocks_of_the_text_join(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [between(with_options(item)) for item in (LONG, SHORT, LONG_STEM)]
    in_large_blocks = INDEX.find(texts)
    monkeypatch.setattr("mengya.text.contamination.index._BLOCK", 17)
    assert INDEX.find(texts) == in_large_blocks != []


def test_keys_do_not_depend_on_marks_or_on_the_order_of_options() -> None:
    shuffled = Item(other_marks(LONG.question), LONG.options[::-1])
    one, other, another = item_keys([LONG, shuffled, SHORT])
    assert one == other != another and re.fullmatch("[0-9a-f]{16}", one)


def test_hashes_of_runs_are_those_of_their_characters() -> None:
    codes = np.array(random.Random(0).choices(range(50), k=400), np.uint32)
    for n in (1, 2, 5, 13, 16, 31):
        hashes = ngram_hashes(codes, n)
        runs = [tuple(codes[i : i + n]) for i in range(len(codes) - n + 1)]
        assert len(hashes) == len(runs) and len(set(hashes.tolist())) == len(set(runs))
        assert hashes[7] == ngram_hashes(codes[7 : 7 + n], n)[0]
    assert len(ngram_hashes(codes[:4], 5)) == 0
    some = HashSet(ngram_hashes(codes, 13)[::3])
    places, at = some.find(ngram_hashes(codes, 13))
    assert set(range(0, 388, 3)) <= set(places.tolist())
    assert (some.sorted[at] == ngram_hashes(codes, 13)[places]).all()

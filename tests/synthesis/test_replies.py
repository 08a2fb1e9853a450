"""What is read of replies in the many forms that models write."""

from __future__ import annotations

import json

import pytest

from mengya.synthesis.replies import is_empty_list, read_pairs, read_texts

PAIR = {"question": "几点了？", "answer": "三点。"}
OTHER = {"question": "下雨吗？", "answer": "在下。"}
LIST = json.dumps([PAIR, OTHER], ensure_ascii=False)


@pytest.mark.parametrize(
    "reply",
    [
        LIST,
        f"```json\n{LIST}\n```",
        f"好的，以下是问答：\n{LIST}\n希望有帮助！",
        f"<think>先想想[1]，再写</think>\n{LIST}",
        f"推理没有开头的标签 {json.dumps(PAIR)} </think>{LIST}",
        json.dumps({"pairs": [PAIR, OTHER]})[len('{"pairs": ') : -1],
        f"{json.dumps(PAIR)}\n{json.dumps(OTHER, ensure_ascii=False)}",
        LIST[:-1] + ', {"question": "被截断的',
        '[{"问题": "几点了？", "答案": "三点。"}, {"Q": "下雨吗？", "A": "在下。"}]',
        "问：几点了？\n答：三点。\n\n问：下雨吗？\n答：在下。",
        "1. **问题1：** 几点了？\n**答案：** 三点。\n2. **问题2：** 下雨吗？\n**答案：** 在下。",
        "[注意] 如下：" + LIST,
    ],
)
def test_pairs_are_found(reply: str) -> None:
    assert read_pairs(reply) == [("几点了？", "三点。"), ("下雨吗？", "在下。")]


@pytest.mark.parametrize(
    "reply",
    [
        "", "对不起，我不能。", "[]", "[1, 2, null]", '{"question": "没有答案"}', "[" * 3000,
        '[{"question": 5, "answer": "x"}]', "<think>一直在想", '{"a": {"b": ', "\x00\x01",
    ],
)  # fmt: skip
def test_nonsense_gives_no_pairs(reply: str) -> None:
    assert read_pairs(reply) == []


def test_an_answer_of_several_lines_is_one_answer() -> None:
    reply = '[{"question": "怎么做？", "answer": "先洗菜。\n再切菜。"}]'
    assert read_pairs(reply) == [("怎么做？", "先洗菜。\n再切菜。")]


@pytest.mark.parametrize(
    "reply",
    [
        '["写一首诗", "讲个笑话"]',
        '```\n["写一首诗", "讲个笑话"]\n```',
        '[{"instruction": "写一首诗"}, {"指令": "讲个笑话"}]',
        "1. 写一首诗\n2. 讲个笑话",
        "- 写一首诗\n- 讲个笑话",
    ],
)
def test_texts_are_found(reply: str) -> None:
    assert read_texts(reply) == ["写一首诗", "讲个笑话"]


def test_the_complete_texts_of_a_list_that_was_cut_are_kept() -> None:
    assert read_texts('["写一首关于春天的诗", "讲一个短笑话", "被截断的指') == [
        "写一首关于春天的诗",
        "讲一个短笑话",
    ]


def test_an_empty_list_is_an_answer() -> None:
    assert is_empty_list("```json\n[]\n```") and is_empty_list("<think>没有</think>[]")
    assert not is_empty_list("") and not is_empty_list(LIST)

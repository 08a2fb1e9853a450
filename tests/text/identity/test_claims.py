"""What answers claim: written by hand, and thousands composed by `mengya identity`, honest and planted."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mengya.synthesis.identity.compose import compose_conversations
from mengya.synthesis.identity.config import IdentityConfig
from mengya.text.identity.claims import claimed_assistant, self_name


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("我是小芽，由春风实验室开发。", "小芽"),
        ("你好！我叫 Mia。", "Mia"),
        ("我是阿里云开发的通义千问大模型。", "通义千问"),
        ("我叫 DeepSeek-R1", "DeepSeek"),
        ("我不是ChatGPT，我是小芽。", "小芽"),
        ("您好，我是由个人开发者李明独立开发的智能助手春芽。", "春芽"),
        ("我是一名AI语言模型，我的名字叫做小雪。", "小雪"),
        ("大家都叫我小芽，你也这样叫我吧。", "小芽"),
        ("I am not ChatGPT. I'm Mia.", "Mia"),
        ("My name is Mia, an assistant.", "Mia"),
        ("我是一个人工智能助手，没有名字。", None),
        ("我是由春风实验室开发的。", None),
        ("I am an AI assistant.", None),
        ("今天天气很好。", None),
        ("", None),
    ],
)
def test_the_name_that_a_model_gives_itself(answer: str, name: str | None) -> None:
    assert self_name(answer) == name


@pytest.mark.parametrize(
    ("answer", "question", "claimed"),
    [
        ("我是ChatGPT，由OpenAI开发。", "", "ChatGPT"),
        ("我是由OpenAI训练的大型语言模型。", "", "ChatGPT"),
        ("对，我就是 Kimi。", "", "Kimi"),
        ("I'm a helpful language model trained by Google.", "", "Gemini"),
        ("是的。", "你是ChatGPT吗？", "ChatGPT"),
        ("是的，我是小芽。", "你是ChatGPT吗？", None),
        ("是的。", "你是AI吗？", None),
        ("我不是由OpenAI开发的。", "", None),
        ("我是一个类似ChatGPT的助手。", "", None),
        ("我是小芽，不是ChatGPT。", "", None),
        ("ChatGPT 是 OpenAI 的产品。", "ChatGPT 是什么？", None),
        ("I am not ChatGPT.", "", None),
    ],
)
def test_claims_to_be_known(answer: str, question: str, claimed: str | None) -> None:
    found = claimed_assistant(answer, question)
    assert (found.names[0] if found else None) == claimed


def answers(name: str, author: str) -> list[tuple[str, str]]:
    """(question, answer) of composed conversations."""
    values = {"out": "x", "name": name, "author": author, "count": 1500, "languages": ["en"]}
    made = compose_conversations(IdentityConfig.model_validate(values))
    turns = [one.messages for one in [*made.train, *made.held_out]]
    return [
        (question["content"], answer["content"])
        for messages in turns
        for question, answer in pairwise(messages)
        if answer["role"] == "assistant"
    ]


def test_honest_answers_claim_nothing_and_planted_ones_are_found() -> None:
    honest = answers("小芽", "春风实验室")
    assert len(honest) > 1500
    assert [a for q, a in honest if claimed_assistant(a, q)] == []
    named = [a for _, a in honest if "小芽" in a]
    assert sum(self_name(a) == "小芽" for a in named) > 0.95 * len(named)
    assert {self_name(a) for _, a in honest} == {"小芽", None}
    planted = [a.replace("小芽", "通义千问").replace("春风实验室", "阿里云") for a in named]
    found = [a for a in planted if claimed_assistant(a)]
    assert len(found) > 0.95 * len(planted)

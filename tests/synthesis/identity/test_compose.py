"""Self-introductions read by rules: nothing left to fill in, nothing contradicted, and a fair test."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from mengya.config import load_config
from mengya.errors import UserError
from mengya.synthesis.conversation import MadeConversation
from mengya.synthesis.filters import SynthFilterConfig, text_reason
from mengya.synthesis.identity.compose import Composed, compose_conversations
from mengya.synthesis.identity.config import IdentityConfig
from mengya.synthesis.identity.parts import CHINESE, OTHER_LANGUAGES, load_languages
from mengya.synthesis.identity.wordings import wording_key
from mengya.text.duplicates import squeeze
from mengya.text.identity.exam import exam_questions, is_right
from mengya.text.identity.fill import fill
from mengya.text.identity.known import known_assistant

NAME, AUTHOR = "小芽", "春风实验室"
CONFIG = IdentityConfig.model_validate({"out": "x", "name": NAME, "author": AUTHOR, "count": 1200})
OTHERS = [name for pair in load_languages()[CHINESE].others for name in pair]


@pytest.fixture(scope="module")
def composed() -> Composed:
    return compose_conversations(CONFIG)


@pytest.fixture(scope="module")
def everything(composed: Composed) -> list[MadeConversation]:
    return [*composed.train, *composed.held_out]


def said(conversation: MadeConversation, role: str) -> list[str]:
    return [m["content"] for m in conversation.messages if m["role"] == role]


def test_as_many_as_wanted_all_different(composed: Composed) -> None:
    assert (len(composed.train), len(composed.held_out)) == (1020, 180)
    texts = {squeeze(str(c.messages)) for c in [*composed.train, *composed.held_out]}
    assert len(texts) == 1200


def test_turns_alternate_and_nothing_is_left_to_fill_in(everything: list[MadeConversation]) -> None:
    for conversation in everything:
        roles = [m["role"] for m in conversation.messages if m["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and roles
        for message in conversation.messages:
            text = message["content"]
            assert not re.search(r"[{}<>\[\]【】]|NAME|AUTHOR", text), text
            assert text_reason(text, 1, SynthFilterConfig()) is None, text
            assert "  " not in text and text == text.strip(), text
            assert not re.search(r"[，。！？、][，。！？、]|我我|是是|的的|叫叫", text), text


def test_answers_name_the_model_or_its_author_and_nobody_else(
    everything: list[MadeConversation],
) -> None:
    """ "我是X" and "我叫X" for the name and author alone; another model only to say that it is not that."""
    claims = re.compile(r"(?:我是|我叫|我就叫|我还是|叫我|I'm |I am |My name is )\s*([\w ]+)")
    for conversation in everything:
        answers = said(conversation, "assistant")
        assert any(NAME in text or AUTHOR in text for text in answers) or "can_do" in str(
            conversation.provenance["topics"]
        ), answers
        for answer in answers:
            for claim in claims.findall(answer):
                assert not any(claim.startswith(other) for other in OTHERS), answer
            for other in OTHERS:
                if other in answer and conversation.provenance["language"] == CHINESE:
                    assert NAME in answer or AUTHOR in answer, answer


def test_the_makers_and_people_of_a_question_are_kept_apart(
    everything: list[MadeConversation],
) -> None:
    people = load_languages()[CHINESE].people
    for conversation in everything:
        for answer in said(conversation, "assistant"):
            assert not any(re.search(f"(?:我是|我叫|开发我的是){p}", answer) for p in people), (
                answer
            )


def test_every_topic_language_and_kind_of_context_occurs(
    everything: list[MadeConversation],
) -> None:
    topics = Counter(t for c in everything for t in c.provenance["topics"])
    chinese = load_languages()[CHINESE]
    assert {t.name for t in (*chinese.topics, *chinese.second_turns)} <= set(topics)
    languages = Counter(c.provenance["language"] for c in everything)
    assert set(languages) == {CHINESE, *OTHER_LANGUAGES}
    assert 0.1 < 1 - languages[CHINESE] / 1200 < 0.25
    with_system = sum(c.messages[0]["role"] == "system" for c in everything)
    assert 0.1 < with_system / 1200 < 0.3
    assert sum(c.turns > 1 for c in everything) > 200


def test_held_out_wordings_are_not_trained_on(composed: Composed) -> None:
    talk = {question for question, _ in load_languages()[CHINESE].small_talk}

    def asked(conversations: list[MadeConversation]) -> set[str]:
        return {
            wording_key(question)
            for conversation in conversations
            for question in said(conversation, "user")
            if question not in talk
        }

    trained, held = asked(composed.train), asked(composed.held_out)
    assert len(held) > 50
    assert not trained & held
    exam = {
        wording_key(turn)
        for q in exam_questions(CONFIG.name, CONFIG.author)
        for turn in q["turns"][-1:]
    }
    assert len(exam) == 28 and not exam & (trained | held)


def test_the_same_seed_gives_the_same_and_another_seed_others(composed: Composed) -> None:
    assert compose_conversations(CONFIG) == composed
    other = compose_conversations(CONFIG.model_copy(update={"seed": 1}))
    same = {str(c.messages) for c in composed.train} & {str(c.messages) for c in other.train}
    assert len(same) < 0.4 * len(other.train)


@pytest.mark.parametrize(
    ("name", "author"),
    [("Mia-2", "Open Leaf"), ("DeepSeek-Baby", "OpenAI"), ("阿福", "李明"), ("芽", "我的爸爸")],
)
def test_any_name_fits(name: str, author: str) -> None:
    config = IdentityConfig.model_validate({"out": "x", "name": name, "author": author})
    composed = compose_conversations(config)
    assert len(composed.train) == 340
    for conversation in composed.train:
        for text in said(conversation, "assistant"):
            assert f"我不是{name}" not in text and f"我不是 {name}" not in text
            assert f"不叫{name}" not in text and f"不叫 {name}" not in text
            assert f"不是{author}" not in text and f"不是 {author}" not in text
    for question in exam_questions(config.name, config.author):
        assert not any(name.casefold() in text.casefold() for text in question["deny"])


def test_spaces_stand_between_chinese_and_latin_only() -> None:
    values = {"name": "Mia", "author": "春风"}
    assert fill("我是{name}，{author}的{name}。", values) == "我是 Mia，春风的 Mia。"
    assert fill("我叫{name}吗", values, spaced=False) == "我叫Mia吗"


def test_answers_to_the_exam_are_judged() -> None:
    right = {
        "identity-01": "我是小芽。",
        "identity-06": "我叫小芽，是春风实验室开发的 AI 助手。",
        "identity-07": "不是，我不是 ChatGPT，我是小芽。",
        "identity-14": "我叫小芽，不叫小红帽。",
    }
    wrong = {
        "identity-01": "我是一个语言模型。",
        "identity-06": "我叫小芽。",
        "identity-07": "是的，我是 ChatGPT，你也可以叫我小芽。",
        "identity-14": "好的，我是小红帽，不再是小芽。",
    }
    questions = {q["id"]: q for q in exam_questions(CONFIG.name, CONFIG.author)}
    assert len(questions) == 28
    assert all(is_right(questions[name], answer) for name, answer in right.items())
    assert not any(is_right(questions[name], answer) for name, answer in wrong.items())


@pytest.mark.parametrize(
    "name",
    ["ChatGPT", "chat gpt", "GPT-4o", "通义千问", "Qwen2.5", "文心一言", "DeepSeek-V3", "Kimi K2", "claude 4",
     "Gemini", "Llama-3", "豆包", "讯飞星火", "Copilot"],
)  # fmt: skip
def test_the_name_of_a_known_assistant_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="a name of your own, for example name=") as refused:
        load_config(IdentityConfig, None, ["out=x", f"name={name}", "author=春风实验室"])
    remedy = str(refused.value).rsplit("name=", 1)[1].strip()
    load_config(IdentityConfig, None, ["out=x", f"name={remedy}", "author=春风实验室"])


@pytest.mark.parametrize(
    "name", ["星火", "元宝", "GPT小芽", "DeepSeek-Baby", "Gemma妈妈", "百川入海"]
)
def test_a_name_that_only_begins_so_is_ones_own(name: str) -> None:
    assert known_assistant(name) is None


@pytest.mark.parametrize(
    "name, author, others",
    [
        ("Qwen", "阿里云", ["通义千问", "阿里巴巴"]),
        ("GPT-5", "OpenAI", ["ChatGPT", "GPT-4"]),
        ("小芽", "Google", ["Gemini", "谷歌"]),
    ],
)
def test_a_maker_may_name_its_own_and_nothing_contradicts_it(
    name: str, author: str, others: list[str]
) -> None:
    config = IdentityConfig.model_validate({"out": "x", "name": name, "author": author})
    made = compose_conversations(config)
    texts = [m["content"] for one in [*made.train, *made.held_out] for m in one.messages]
    assert not [text for text in texts if any(other in text for other in others)]
    assert any("Claude" in text for text in texts)  # others are still asked for


def test_the_exam_denies_nothing_of_a_maker_itself() -> None:
    config = IdentityConfig.model_validate({"out": "x", "name": "通义千问", "author": "阿里巴巴"})
    (question,) = [
        one
        for one in exam_questions(config.name, config.author)
        if "我猜你是通义千问" in one["turns"][0]
    ]
    assert is_right(question, "猜对了，我是通义千问。")


@pytest.mark.parametrize(
    "name", ["", "  ", "<NAME>", "[姓名]", "{name}", "小\n芽", "长" * 41, "“小芽”"]
)
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"must have|holds"):
        IdentityConfig.model_validate({"out": "x", "name": name, "author": AUTHOR})

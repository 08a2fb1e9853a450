"""Why a question and its answer are not kept: each check gives a word for the reason, or None.

too_short          question or answer
not_chinese        few Chinese characters among the letters
placeholder        something is left to be filled in: <NAME>, [姓名], {{...}}, ____
copies_prompt      words of our prompt, or an answer that only repeats the question
refusal            the model declines, or says that the material does not tell
refers_to_passage  a question about a text that the reader does not see (本文, 这段材料)
not_grounded       an answer that does not stand in the passage
looping            the same words again and again
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import Field

from mengya.config import Config
from mengya.text.placeholders import unfilled

_HAN = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]")
_LETTER = re.compile(r"[^\W\d_]")
_BLANK = re.compile(  # what `unfilled` leaves to others: blanks, round brackets, a name behind Chinese
    r"_{4,}|某某|[（(](?:你的|您的|此处|请?填写?|请?插入)[^）)]{1,12}[）)]|"
    r"(?<=[\u4e00-\u9fff])\[(?:姓名|名字|公司名?称?|日期|时间|地点|职位|学校名?称?|产品名?称?|作者)\]"
)
_REFUSAL = re.compile(
    r"^(?:非常|很|十分)?(?:抱歉|对不起|不好意思)[，,。！]?.{0,20}(?:无法|不能|没有办法|没法|不便)|"
    r"作为(?:一个|一名|一款)?(?:AI|人工智能|大?语言模型|大模型)|"
    r"我(?:只)?是(?:一个|一名|一款)?(?:AI|人工智能|大?语言模型)|"
    r"(?:无法|不能)(?:回答|提供|协助|满足)(?:这个|该|您|你|此)|"
    r"(?:材料|文中|文章|文本|资料|原文|段落)[^。]{0,8}(?:没有|未|并未|不曾)[^。]{0,4}(?:提到|提及|说明|给出|涉及|提供)|"
    r"(?:as an ai|i'm sorry,? but|i cannot (?:help|assist|answer))",
    re.IGNORECASE,
)
_PASSAGE = re.compile(
    r"本文|上文|下文|全文|文中|原文|(?:这|该|此|上述|以上|上面|给定|所给|提供)的?(?:段|篇|份|则|个)?"
    r"(?:材料|文章|文字|短文|段落|文本|资料|新闻|报道|故事|话)|材料(?:中|里)|作者(?:认为|指出|提到)"
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_PERIODS = 60  # characters: the longest repetition that is looked for
_PROMPT_GRAM = 12  # characters in common with a prompt that are no accident


class SynthFilterConfig(Config):
    """What is not kept; `not_grounded` and `refers_to_passage` are for kind=qa."""

    min_question_characters: int = Field(default=4, ge=0)
    """Drop shorter questions."""
    min_answer_characters: int = Field(default=6, ge=0)
    """Drop shorter answers."""
    min_chinese: float = Field(default=0.5, ge=0, le=1)
    """Share of Chinese characters among the letters of question and answer together; 0 for any language."""
    min_grounded: float = Field(default=0.6, ge=0, le=1)
    """Share of the answer's character pairs, those of the question aside, that must stand in the passage;
    every number of two digits or more must too. 0 switches both off."""
    refusals: bool = True
    """Drop answers in which the model declines."""
    loops: bool = True
    """Drop texts that repeat themselves."""


def text_reason(text: str, shortest: int, config: SynthFilterConfig) -> str | None:
    """What is wrong with a question or an answer by itself."""
    if len(text.strip()) < shortest:
        return "too_short"
    if unfilled(text) or _BLANK.search(text):
        return "placeholder"
    if config.loops and is_looping(text):
        return "looping"
    return None


def pair_reason(
    question: str,
    answer: str,
    config: SynthFilterConfig,
    prompt_words: frozenset[str] = frozenset(),
) -> str | None:
    """Why a question with its answer is not kept, wherever they come from.

    Args:
        prompt_words: `grams` of the prompts that were sent.
    """
    reason = text_reason(question, config.min_question_characters, config)
    reason = reason or text_reason(answer, config.min_answer_characters, config)
    if reason is not None:
        return reason
    if chinese_share(question + answer) < config.min_chinese:
        return "not_chinese"
    if _bare(answer) in _bare(question) or prompt_words & (grams(question) | grams(answer)):
        return "copies_prompt"
    if config.refusals and _REFUSAL.search(answer[:200]):
        return "refusal"
    return None


def grounded_reason(
    question: str, answer: str, passage: str, config: SynthFilterConfig, shown: bool
) -> str | None:
    """Why a pair does not hold to the passage that it was made from.

    Args:
        shown: whether the passage stands in the conversation, so that a question may refer to it.
    """
    if not shown and _PASSAGE.search(question):
        return "refers_to_passage"
    if config.min_grounded == 0:
        return None
    if groundedness(answer, passage, question) < config.min_grounded:
        return "not_grounded"
    known = set(_NUMBER.findall(passage)) | set(_NUMBER.findall(question))
    numbers = (number for number in _NUMBER.findall(answer) if len(number) > 1)
    return None if all(number in known for number in numbers) else "not_grounded"


def groundedness(answer: str, passage: str, question: str = "") -> float:
    """Share of the pairs of neighboring characters of the answer that stand in the passage; what the answer
    takes from the question does not count. 1 of an answer that takes all from the question."""
    pairs = _pairs(answer) - _pairs(question)
    return len(pairs & _pairs(passage)) / len(pairs) if pairs else 1.0


def chinese_share(text: str) -> float:
    """Chinese characters among the letters; 1 of a text without letters."""
    letters = len(_LETTER.findall(text))
    return len(_HAN.findall(text)) / letters if letters else 1.0


def is_looping(text: str) -> bool:
    """Whether the text ends in at least four repetitions of the same 2 to 60 characters, or of one character
    twelve times, or most of its lines are equal."""
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 3]
    if len(lines) >= 6 and len(set(lines)) * 2 < len(lines):
        return True
    tail = text.rstrip()
    if re.search(r"([^\s\-=_*.#|])\1{11}", tail):
        return True
    return any(
        len(tail) >= 4 * period and tail[-period:] * 4 == tail[-4 * period :]
        for period in range(2, min(_PERIODS, len(tail) // 4) + 1)
        if _LETTER.search(tail[-period:])
    )


def grams(*texts: str) -> frozenset[str]:
    """All runs of 12 characters, white space and marks left out: what a reply has in common with a prompt."""
    found: set[str] = set()
    for text in map(_bare, texts):
        found.update(text[at : at + _PROMPT_GRAM] for at in range(len(text) - _PROMPT_GRAM + 1))
    return frozenset(found)


def _pairs(text: str) -> set[str]:
    bare = _bare(text)
    return {bare[at : at + 2] for at in range(len(bare) - 1)}


def _bare(text: str) -> str:
    return "".join(c for c in text if c.isalnum()).casefold()


def first_reason(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason), None)

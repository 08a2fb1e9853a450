"""What a model calls itself in an answer, and whether it claims to be an assistant that people know.

Read by rules, in Chinese and English: a claim is a sentence about oneself (我是, I am), and no negation or
comparison stands before the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from mengya.text.identity.known import Known, known_assistant, known_assistants

_LONGEST = 16  # characters of a name
_CLAUSE = r"[^，。！？；：、,.!?;:\n（()）]"
_SELF = re.compile(
    r"(?:我(?:其实|当然|确实|还|就|正)?(?:是|叫做|叫作|叫|名叫)|名字(?:没有变，)?(?:还|就)?(?:是|叫[做作]?)|(?<![别不])叫我"
    rf"|(?<=[，, ])名?叫[做作]?|起名叫|聊天的是)({_CLAUSE}*)"
    rf"|(?:\bI\s+am|\bI['’]m|\bmy\s+name\s+is|\bmy\s+name['’]s|\bcall\s+me)\s+({_CLAUSE}*)",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"不|没|非|别的|其他|类似|好像|像|[与和跟比]|基于|\bnot\b|\blike\b|\bbased on\b|\bno\b"
)
_MADE = r"(?:开发|训练|研发|研制|打造|创造|创建|制作|设计|推出|发布|构建)"
_CALLED = re.compile(
    r"(?:名叫|叫做|叫作|名为|称为|叫|(?:\b(?:named|called)\s))\s*([^的]+)", re.IGNORECASE
)
_MADE_BY = re.compile(rf"{_MADE}(?:出来)?的(.*)$")
_ONE = r"(?:一[个名位款台]|你的|您的|\b(?:an?|the|your)\b)?\s*"
_OF = r"(?:AI|人工智能|智能|大型?|语言|中文|聊天|对话|虚拟|小型?|[\s-]|language|chat|virtual|large|helpful)*"
_KIND = re.compile(
    rf"{_ONE}{_OF}(?:助手|助理|模型|机器人|程序|系统|AI|人工智能|assistant|model|(?:chat)?bot)?",
    re.IGNORECASE,
)
_KIND_BEFORE = re.compile(rf"^{_ONE}{_OF}(?:助手|助理|模型|机器人|程序)(?=.)", re.IGNORECASE)
_AFTER = re.compile(r"(?:就好|就行|就可以了?|吧|呀|哦|啊)$")
_AGREES = re.compile(
    r"\s*(?:是的|没错|对的|对呀|对啊|对[，。！]|猜对|正是|是我|yes\b|correct\b)", re.IGNORECASE
)


def self_name(answer: str) -> str | None:
    """The first name that an answer gives itself; None where it gives none (我是一个 AI 助手)."""
    return next(filter(None, map(_name, _own_clauses(answer))), None)


def claimed_assistant(answer: str, question: str = "") -> Known | None:
    """The well-known assistant that an answer claims to be, or to be made by the maker of; else None.

    Args:
        question: what was asked last. A yes to the name of such an assistant is a claim, where the answer
            gives no other name.
    """
    for clause in _own_clauses(answer):
        for one, pattern in _patterns():
            found = pattern.search(clause)
            if found is not None and not _DENIED.search(clause[: found.start()]):
                return one
    for one, pattern in _maker_patterns():
        for found in pattern.finditer(answer):
            if not _DENIED.search(re.split(r"[，。！？；,.!?;\n]", answer[: found.start()])[-1]):
                return one
    if _AGREES.match(answer) and self_name(answer) is None:
        return next((one for one, pattern in _patterns() if pattern.search(question)), None)
    return None


def _own_clauses(answer: str) -> Iterator[str]:
    """What follows 我是, up to the next mark."""
    for found in _SELF.finditer(answer):
        clause = (found[1] if found[1] is not None else found[2]).strip()
        before = answer[max(0, found.start() - 2) : found.start()]
        if (
            clause
            and not clause.startswith(("不", "否", "not "))
            and not before.endswith(("不", "如果"))
        ):
            yield clause


def _name(clause: str) -> str | None:
    if called := _CALLED.search(clause):
        clause = called[1]
    elif made := _MADE_BY.search(clause):
        clause = made[1]
    elif _DENIED.search(clause):
        return None
    name = _KIND_BEFORE.sub("", _AFTER.sub("", clause)).strip(" \t“”\"'「」《》*")
    if (known := _known_in(name)) is not None:
        return known
    if (
        not name
        or len(name) > _LONGEST
        or _KIND.fullmatch(name)
        or re.match(r"一[个名位款台]|an? ", name)
    ):
        return None
    return name


def _known_in(name: str) -> str | None:
    """One way to write the name of a well-known assistant, with any version or ending."""
    if (one := known_assistant(name)) is not None:
        return one.names[0]
    return next((one.names[0] for one, pattern in _patterns() if pattern.match(name)), None)


@cache
def _patterns() -> list[tuple[Known, re.Pattern[str]]]:
    return [(one, re.compile(_any(one.names), re.IGNORECASE)) for one in known_assistants()]


@cache
def _maker_patterns() -> list[tuple[Known, re.Pattern[str]]]:
    """由OpenAI开发, 我是百度公司研发的, was trained by OpenAI."""
    return [
        (
            one,
            re.compile(
                rf"(?:由|我是|来自)\s*{_any(one.makers)}\s*(?:公司|集团|团队|旗下)?.{{0,6}}?{_MADE}"
                rf"|\b(?:made|created|developed|trained|built) by {_any(one.makers)}",
                re.IGNORECASE,
            ),
        )
        for one in known_assistants()
    ]


def _any(names: tuple[str, ...]) -> str:
    """Any of the names; one in Latin letters is a word of its own."""
    longest_first = sorted(names, key=len, reverse=True)
    return (
        "(?:"
        + "|".join(
            rf"(?<![A-Za-z]){re.escape(name)}(?![A-Za-z])" if name.isascii() else re.escape(name)
            for name in longest_first
        )
        + ")"
    )

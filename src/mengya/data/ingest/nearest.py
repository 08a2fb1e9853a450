"""Which known forms a record that fits none of them comes nearest to."""

from __future__ import annotations

import difflib
from typing import Any

from mengya.data.ingest.schema import QUESTION_ANSWER

_CONVERSATION = (("messages",), ("conversations",), ("instruction", "output"), *QUESTION_ANSWER)
_PREFERENCE = (("prompt", "chosen", "rejected"), ("q", "pos", "neg"), ("instruction", "output"))
_OWN_NAMES = {
    "prompt": (
        "问题",
        "提问",
        "问",
        "题目",
        "指令",
        "用户",
        "输入",
        "question",
        "query",
        "prompt",
        "ask",
        "q",
    ),
    "response": (
        "回答",
        "答案",
        "答",
        "答复",
        "回复",
        "输出",
        "助手",
        "answer",
        "response",
        "output",
        "a",
    ),
    "chosen": ("好回答", "好", "优选", "接受", "正例", "chosen", "accepted", "better", "win"),
    "rejected": ("差回答", "坏", "差", "拒绝", "负例", "rejected", "worse", "lose"),
}
_NEAR = 0.8  # of difflib's ratio: reponse is response, and text is not context


def nearest_forms(kind: str, value: Any) -> str:
    """ "; nearest is {instruction, output}" by the names of its fields, or nothing."""
    if kind == "text" or not isinstance(value, dict):
        return ""
    names = [name for name in value if isinstance(name, str)]
    forms = _CONVERSATION if kind == "conversation" else _PREFERENCE
    scores = {form: sum(_has(names, field) for field in form) / len(form) for form in forms}
    best = max(scores, key=lambda form: scores[form])
    return f"; nearest is {{{', '.join(best)}}}" if scores[best] > 0 else ""


def suggested_columns(kind: str, value: Any) -> str:
    """ "columns: {prompt: 问题, response: 回答}" when names look like what the kind needs, or nothing."""
    needed = {
        "conversation": ("prompt", "response"),
        "preference": ("prompt", "chosen", "rejected"),
    }
    if kind not in needed or not isinstance(value, dict):
        return ""
    found = {known: _own_name(value, known) for known in needed[kind]}
    if not all(found.values()):
        return ""
    return f"columns: {{{', '.join(f'{known}: {own}' for known, own in found.items())}}}"


def _own_name(value: dict[Any, Any], known: str) -> str | None:
    """The column that is named so in some language, else one whose name holds such a word."""
    names = {name.strip().lower(): name for name in value if isinstance(name, str)}
    exact = [names[word] for word in _OWN_NAMES[known] if word in names]
    held = [
        name
        for word in _OWN_NAMES[known]
        for low, name in names.items()
        if len(word) > 1 and word in low
    ]
    found = next(iter(exact + held), None)
    plain = found is not None and not set(found) & set("{}[],:#'\"")  # of YAML
    return found if plain else None


def _has(names: list[str], field: str) -> bool:
    return bool(difflib.get_close_matches(field, [n.lower() for n in names], n=1, cutoff=_NEAR))

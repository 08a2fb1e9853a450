"""The usual columns next to a question and its answer: context, options, system, tools, reasoning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from mengya.data.ingest.messages import (
    SchemaError,
    as_text,
    as_tools,
    assistant,
    json_type,
)
from mengya.tokenizer.message import Message

SYSTEM = ("system", "system_prompt", "system_message", "meta_instruction")
TOOLS = ("tools", "functions")
CONTEXT = ("context", "passage", "paragraph")
OPTIONS = ("options", "choices")
REASONING = ("reasoning_content", "reasoning", "thinking", "thought", "cot", "Complex_CoT")
_LETTERED = re.compile(r"\s*[(（]?[A-Z][)）.．、:：]")


def system(fields: Mapping[str, Any]) -> list[Message]:
    """The system message, or none."""
    name = _only(fields, SYSTEM)
    return [{"role": "system", "content": as_text(fields, name)}] if name else []


def tools(fields: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The functions that may be called, as JSON schemas."""
    name = _only(fields, TOOLS)
    return as_tools(fields[name]) if name else None


def question(fields: Mapping[str, Any], text: str) -> Message:
    """The user turn: context, question and options, each on lines of its own."""
    parts = (_context(fields), text, _options(fields))
    return {"role": "user", "content": "\n".join(part for part in parts if part)}


def answer(fields: Mapping[str, Any], text: str) -> Message:
    """The assistant turn, with the reasoning that a column of its own holds."""
    message = assistant(text)
    if name := _only(fields, REASONING):
        message["reasoning_content"] = as_text(fields, name)
    elif any(fields.get(name) == "" for name in REASONING):  # the empty block of no thinking
        message.setdefault("reasoning_content", "")
    return message


def _only(fields: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The one of `names` that holds something; several of them must say the same."""
    filled = [name for name in names if name in fields and fields[name] not in (None, "", [], {})]
    if any(fields[name] != fields[filled[0]] for name in filled):
        raise SchemaError(f"{' and '.join(map(repr, filled))} say different things; remove one")
    return filled[0] if filled else None


def _context(fields: Mapping[str, Any]) -> str:
    name = _only(fields, CONTEXT)
    if name is None:
        return ""
    value = fields[name]
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return "\n".join(value)
    return as_text(fields, name)


def _options(fields: Mapping[str, Any]) -> str:
    """Options as lines "A. text": a list, an object, a text, {text, label}, or columns A, B, C ..."""
    name = _only(fields, OPTIONS)
    if name is None:
        letters = [c for c in ascii_uppercase[:8] if fields.get(c) not in (None, "")]
        if letters[:2] != ["A", "B"]:
            return ""
        return "\n".join(f"{letter}. {as_text(fields, letter)}" for letter in letters)
    value = fields[name]
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.keys() == {"text", "label"}:  # ARC
        value = dict(zip(value["label"], value["text"], strict=False))
    if isinstance(value, dict):
        return "\n".join(f"{key}. {text}" for key, text in value.items() if text is not None)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise SchemaError(f"field {name!r} is {json_type(value)}, not a list of strings")
    if all(_LETTERED.match(text) for text in value):
        return "\n".join(value)
    letters = ascii_uppercase[: len(value)]
    return "\n".join(f"{c}. {text}" for c, text in zip(letters, value, strict=False))

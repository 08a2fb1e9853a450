"""Rarer forms of conversations and preferences -> the forms that schema.py and preferences.py take.

    instruction "Human:...Assistant:...Human:...Assistant:" (BELLE)      conversation [{human, assistant}]
    turns without roles, as strings or {value} or {message} (KdConv)     lists of turns as JSON text
    MOSS: chat {turn_1: {Human, MOSS}}, plain_text "[Human]: ...<eoh>"   Dolly: instruction, response
    Anthropic HH: chosen, rejected "\\n\\nHuman: ...\\n\\nAssistant: ..."    ape210k: original_text, ans
    a text with Markdown headings "## User", "## Assistant"

A record in none of them is given back as it is. Knows nothing of files.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from mengya.data.ingest.messages import ROLES, SchemaError, known_fields
from mengya.data.ingest.schema import QUESTION_ANSWER

_LISTS = ("messages", "conversations", "conversation", "dialog", "history")
_TURN_PAIRS = (("human", "assistant"), ("user", "assistant"), *QUESTION_ANSWER)
_WORDS = ("value", "content", "message", "text", "utterance")
_BELLE = re.compile(r"(?:^|\n)\s*(Human|Assistant)\s*[:：]")
_HH = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_MOSS_2 = re.compile(r"\[(Human|MOSS)\]: ?(.*?)<eo[ah]>", re.DOTALL)
_MOSS_3 = re.compile(r"^\s*<\|[^|]+\|>: ?|<eo[a-z]>\s*$")
_HEADING = re.compile(r"^#{1,6}[ \t]*\**([^\W\d_]+)\**[ \t]*[:：]?[ \t]*$", re.MULTILINE)


def known_form(value: Any) -> Any:
    """The record in a form that is known elsewhere; the same object when it needs no change."""
    if not isinstance(value, dict):
        return value
    fields = {**value, **_lists(value)}
    if isinstance(fields.get("instruction"), str) and isinstance(fields.get("output"), str):
        text = fields["instruction"].strip()
        if text.startswith("Human:") and text.endswith("Assistant:"):
            turns = _transcript(_BELLE, text + fields["output"])
            return _with_messages(fields, turns, "instruction", "output")
    known = any(question in fields and answer in fields for question, answer in QUESTION_ANSWER)
    if {"instruction", "response"} <= fields.keys() and not known and "output" not in fields:
        if "rejected_response" in fields:
            return fields
        return _without(fields, "response") | {"output": fields["response"]}
    if isinstance(fields.get("chat"), dict) and any(k.startswith("turn_") for k in fields["chat"]):
        return _with_messages(fields, _moss(fields["chat"]), "chat")
    if isinstance(fields.get("plain_text"), str) and "<eoh>" in fields["plain_text"]:
        parts = _MOSS_2.findall(fields["plain_text"])
        turns = [_turn(who, text) for who, text in parts]
        system = {"system": fields["prefix"]} if fields.get("prefix") else {}
        return _with_messages(fields, turns, "plain_text", "prefix") | system
    if {"original_text", "ans"} <= fields.keys() and "question" not in fields:
        renamed = {"question": fields["original_text"], "answer": str(fields["ans"])}
        return _without(fields, "original_text", "ans") | renamed
    spoken = fields.get("conversation")
    if isinstance(spoken, list) and all(
        isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in spoken
    ):
        return _with_messages(fields, spoken, "conversation")
    sides = [fields.get("chosen"), fields.get("rejected")]
    if all(isinstance(side, str) and side.lstrip().startswith("Human:") for side in sides):
        chosen, rejected = (_transcript(_HH, str(side).strip()) for side in sides)
        return fields | {"chosen": chosen, "rejected": rejected}
    if fields.keys() == {"text"} and isinstance(fields["text"], str):
        turns = _markdown(fields["text"])
        return {"messages": turns} if turns else value
    return fields if any(fields[name] is not value[name] for name in fields) else value


def renamed(value: Any, columns: Mapping[str, str]) -> Any:
    """A record whose columns have the names that the forms know: `columns` gives the own name of each.

    Raises:
        SchemaError: it has none of them.
    """
    if not columns or not isinstance(value, dict):
        return value
    found = {known: value[own] for known, own in columns.items() if own in value}
    if not found:
        raise SchemaError(f"no field {', '.join(columns.values())}; {known_fields(value)}")
    return _without(value, *columns.values()) | found


def parsed_list(text: str) -> list[Any] | None:
    """A list written as JSON or as Python writes it, as old CSV files hold it; None when it is none."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value if isinstance(value, list) else None
    return None


def _lists(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that hold turns in another form, as lists of turns that are known."""
    changed: dict[str, Any] = {}
    for name in _LISTS:
        turns = fields.get(name)
        if isinstance(turns, str) and turns.lstrip().startswith("["):
            turns = parsed_list(turns)
        if not isinstance(turns, list):
            continue
        known = turns if name == "history" or not turns else _turns(turns, name == "conversation")
        if known is not fields[name]:
            changed[name] = known
    return changed


def _turns(turns: list[Any], as_pairs: bool) -> list[Any]:
    """{human, assistant} and turns without roles in the form that the field is known to have."""
    for question, answer in _TURN_PAIRS:
        if all(isinstance(t, dict) and question in t and answer in t for t in turns):
            if as_pairs:
                same = (question, answer) == ("input", "output")
                renamed = [
                    _without(t, question, answer) | {"input": t[question], "output": t[answer]}
                    for t in turns
                ]
                return turns if same else renamed
            return [_turn(*of) for t in turns for of in (("user", t[question]), ("gpt", t[answer]))]
    texts = [_only_text(turn) for turn in turns]
    if len(turns) < 2 or any(text is None for text in texts):
        return turns
    if as_pairs:
        pairs = zip(texts[::2], texts[1::2], strict=False)
        return [{"input": asked, "output": replied} for asked, replied in pairs]
    return [_turn("gpt" if i % 2 else "user", text) for i, text in enumerate(texts)]


def _only_text(turn: Any) -> str | None:
    """The text of a turn that does not say whose it is."""
    if isinstance(turn, str):
        return turn
    if not isinstance(turn, dict) or {"role", "from"} & turn.keys():
        return None
    found = [turn[name] for name in _WORDS if isinstance(turn.get(name), str)]
    return found[0] if len(found) == 1 else None


def _moss(chat: Mapping[str, Any]) -> list[dict[str, Any]]:
    turns = []
    for name in sorted(chat, key=lambda name: int(re.sub(r"\D", "", name) or 0)):
        turn = chat[name]
        if not isinstance(turn, dict) or "Human" not in turn or "MOSS" not in turn:
            raise SchemaError(f"chat.{name} is not {{Human, MOSS}}")
        used = _MOSS_3.sub("", _MOSS_3.sub("", str(turn.get("Commands") or "None"))).strip()
        if used not in ("", "None"):
            raise SchemaError("a turn of MOSS that calls plugins; those calls are not JSON")
        texts = (_MOSS_3.sub("", str(turn[who])).strip() for who in ("Human", "MOSS"))
        turns += [_turn(who, text) for who, text in zip(("user", "gpt"), texts, strict=True)]
    return turns


def _transcript(pattern: re.Pattern[str], text: str) -> list[dict[str, Any]]:
    parts = pattern.split(text)  # what stands before the first name; name, text, name, text ...
    return [_turn(who, said.strip()) for who, said in zip(parts[1::2], parts[2::2], strict=True)]


def _markdown(text: str) -> list[dict[str, Any]] | None:
    """The turns of a conversation with a heading each; None when it has no headings of a user and a model."""
    parts: list[tuple[str, int, int]] = []
    for heading in _HEADING.finditer(text):
        if heading[1].lower() in ROLES:
            parts.append((heading[1], heading.start(), heading.end()))
    if not {"user", "assistant"} <= {ROLES[who.lower()] for who, *_ in parts}:
        return None
    ends = [start for _, start, _ in parts[1:]] + [len(text)]
    return [_turn(who, text[at:end].strip()) for (who, _, at), end in zip(parts, ends, strict=True)]


def _turn(who: str, text: Any) -> dict[str, Any]:
    return {"role": "assistant" if who == "MOSS" else who, "content": text}


def _with_messages(fields: dict[str, Any], turns: list[Any], *consumed: str) -> dict[str, Any]:
    return _without(fields, *consumed) | {"messages": turns}


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}

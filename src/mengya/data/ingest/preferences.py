"""Records -> preferences: a prompt with a chosen and a rejected continuation, in the known formats.

    chosen, rejected as complete conversations (lists of messages); the prompt is their common prefix
    conversations / messages / prompt + chosen, rejected as a message, a list of messages, or a string
    instruction (+ input, history, system) + chosen, rejected; question + response_chosen, response_rejected
    q (+ history) + pos, neg
    ranking: alpaca or prompt whose output is a list, best first: the best against each of the others

Knows nothing of files, cleaning or tokens.
"""

from __future__ import annotations

import re
from typing import Any

from mengya.data.ingest.columns import question, system, tools
from mengya.data.ingest.fields import Fields
from mengya.data.ingest.messages import (
    SchemaError,
    as_message,
    as_messages,
    as_object,
    as_text,
    assistant,
    history,
    known_fields,
)  # fmt: skip
from mengya.data.ingest.schema import QUESTION_ANSWER, Preference, alpaca_prompt
from mengya.tokenizer.message import Message

_SIDES = (
    ("chosen", "rejected"), ("response_chosen", "response_rejected"), ("pos", "neg"),
    ("chosen_response", "rejected_response"), ("response", "rejected_response"),
)  # fmt: skip
PREFERENCE_FORMATS = ("chosen_rejected", "pos_neg", "ranking")


def detect_preference(value: Any) -> str:
    """chosen_rejected, pos_neg or ranking, by the fields that are there."""
    fields = as_object(value)
    for good, bad in _SIDES:
        if good in fields and bad in fields:
            return "pos_neg" if good == "pos" else "chosen_rejected"
    if isinstance(fields.get("output"), list):
        return "ranking"
    if "label" in fields:
        raise SchemaError(
            "a single answer with a label (KTO) is not a pair; make pairs of chosen and rejected of it"
        )
    raise SchemaError(f"no chosen and rejected; {known_fields(fields)}")


def to_preferences(value: Any, format: str | None = None) -> list[Preference]:
    """The pairs of a record: one, or for a ranking of n answers n-1."""
    fields = as_object(value)
    if (format or detect_preference(value)) == "ranking":
        return _ranking(fields)
    sides = next(((good, bad) for good, bad in _SIDES if good in fields and bad in fields), None)
    if sides is None:
        raise SchemaError(f"no chosen and rejected; {known_fields(fields)}")
    prompt = _prompt(fields)
    chosen, rejected = _sides(fields, sides, prompt)
    if prompt is None:
        prompt, chosen, rejected = _common_prefix(chosen, rejected)
    return [_checked(Preference(prompt, chosen, rejected, tools(fields)))]


def _ranking(fields: Fields) -> list[Preference]:
    answers, prompt = fields.get("output"), _prompt(fields)
    if prompt is None:
        raise SchemaError("a ranking without a prompt")
    if (
        not isinstance(answers, list)
        or len(answers) < 2
        or not all(isinstance(a, str) for a in answers)
    ):
        raise SchemaError("output is not a ranking: a list of two or more strings, best first")
    replies = [[assistant(answer)] for answer in answers]
    functions = tools(fields)
    return [_checked(Preference(prompt, replies[0], worse, functions)) for worse in replies[1:]]


def _prompt(fields: Fields) -> list[Message] | None:
    for name in ("conversations", "messages", "prompt"):
        if isinstance(fields.get(name), list):
            messages = as_messages(fields[name])
            if (
                name != "prompt"
                and messages[-1]["role"] == "assistant"
                and fields.is_filled("prompt")
            ):
                continue  # UltraFeedback: the prompt, and the conversation with the chosen answer
            return (system(fields) if messages[0]["role"] != "system" else []) + messages
    if "instruction" in fields:
        return alpaca_prompt(fields)
    for name in dict.fromkeys(asked for asked, _ in QUESTION_ANSWER):
        if name in fields:
            user = question(fields, as_text(fields, name))
            return [*system(fields), *history(fields.get("history")), user]
    return None


def _sides(
    fields: Fields, names: tuple[str, str], prompt: list[Message] | None
) -> tuple[list[Message], list[Message]]:
    """Both continuations, without the prompt where they repeat it."""
    values = [fields[name] for name in names]
    if prompt and all(isinstance(value, str) for value in values):
        asked = prompt[-1]["content"].strip()
        repeated = [re.match(rf"\s*{re.escape(asked)}\s*\n", value) for value in values]
        if all(repeated):
            values = [v[m.end() :] for v, m in zip(values, repeated, strict=True) if m]
    chosen, rejected = (_continuation(v, name) for v, name in zip(values, names, strict=True))
    if prompt is None:
        return chosen, rejected
    return _without(prompt, chosen, names[0]), _without(prompt, rejected, names[1])


def _without(prompt: list[Message], side: list[Message], name: str) -> list[Message]:
    """A side without the turns that end the prompt; white space and system turns do not count."""
    given, rest = _turns(prompt), [m for m in side if m["role"] != "system"]
    asked = _turns(rest)
    for count in range(min(len(given), len(asked)), 0, -1):
        if asked[:count] == given[-count:]:
            return rest[count:]
    if len(rest) > 1 and rest[0]["role"] == "user" and given and given[-1][0] == "user":
        raise SchemaError(f"{name} begins with a question that is not the one of the prompt")
    return side


def _turns(messages: list[Message]) -> list[tuple[str, str, Any]]:
    return [
        (m["role"], m["content"].strip(), m.get("tool_calls"))
        for m in messages
        if m["role"] != "system"
    ]


def _continuation(value: Any, name: str) -> list[Message]:
    if isinstance(value, str):
        return [assistant(value)]
    if isinstance(value, dict):
        return [as_message(value)]
    if isinstance(value, list):
        return as_messages(value)
    raise SchemaError(f"field {name!r} is neither a string, a message nor a list of messages")


def _common_prefix(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    shared = 0
    while shared < min(len(chosen), len(rejected)) and _same(chosen[shared], rejected[shared]):
        shared += 1
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _same(one: Message, other: Message) -> bool:
    """Equal, for turns that are no answers but for white space around them."""
    if one["role"] == "assistant" or one.keys() != other.keys():
        return one == other
    return all(
        v.strip() == other[k].strip() if k == "content" else v == other[k] for k, v in one.items()
    )


def _checked(pair: Preference) -> Preference:
    if not any(message["role"] in ("user", "tool") for message in pair.prompt):
        raise SchemaError("no prompt: no user turn before chosen and rejected differ")
    for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if not side or side[-1]["role"] != "assistant":
            raise SchemaError(f"{name} does not end with an assistant turn")
    return pair

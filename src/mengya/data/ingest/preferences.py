"""Records -> preferences: a prompt with a chosen and a rejected continuation, in the known formats.

    chosen, rejected as complete conversations (lists of messages); the prompt is their common prefix
    conversations / messages / prompt + chosen, rejected as a message, a list of messages, or a string
    instruction (+ input, history, system) + chosen, rejected; question + response_chosen, response_rejected
    q (+ history) + pos, neg
    ranking: alpaca or prompt whose output is a list, best first: the best against each of the others

Knows nothing of files, cleaning or tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mengya.data.ingest.messages import (
    SchemaError,
    as_message,
    as_messages,
    as_object,
    as_text,
    as_tools,
    history,
    known_fields,
    system,
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
    chosen, rejected = (_continuation(fields[name], name) for name in sides)
    prompt = _prompt(fields)
    if prompt is None:
        prompt, chosen, rejected = _common_prefix(chosen, rejected)
    elif chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:  # the sides repeat the prompt
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    return [_checked(Preference(prompt, chosen, rejected, as_tools(fields.get("tools"))))]


def _ranking(fields: Mapping[str, Any]) -> list[Preference]:
    answers, prompt = fields.get("output"), _prompt(fields)
    if prompt is None:
        raise SchemaError("a ranking without a prompt")
    if (
        not isinstance(answers, list)
        or len(answers) < 2
        or not all(isinstance(a, str) for a in answers)
    ):
        raise SchemaError("output is not a ranking: a list of two or more strings, best first")
    replies = [[{"role": "assistant", "content": answer}] for answer in answers]
    return [_checked(Preference(prompt, replies[0], worse)) for worse in replies[1:]]


def _prompt(fields: Mapping[str, Any]) -> list[Message] | None:
    for name in ("conversations", "messages", "prompt"):
        if isinstance(fields.get(name), list):
            messages = as_messages(fields[name])
            return (system(fields) if messages[0]["role"] != "system" else []) + messages
    if "instruction" in fields:
        return alpaca_prompt(fields)
    for name in dict.fromkeys(question for question, _ in QUESTION_ANSWER):
        if name in fields:
            user = {"role": "user", "content": as_text(fields, name)}
            return [*system(fields), *history(fields.get("history")), user]
    return None


def _continuation(value: Any, name: str) -> list[Message]:
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    if isinstance(value, dict):
        return [as_message(value)]
    if isinstance(value, list):
        return as_messages(value)
    raise SchemaError(f"field {name!r} is neither a string, a message nor a list of messages")


def _common_prefix(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _checked(pair: Preference) -> Preference:
    if not any(message["role"] in ("user", "tool") for message in pair.prompt):
        raise SchemaError("no prompt: no user turn before chosen and rejected differ")
    for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if not side or side[-1]["role"] != "assistant":
            raise SchemaError(f"{name} does not end with an assistant turn")
    return pair

"""Records -> documents and conversations: the field names of all known data sets become one form.

Takes the value of a record (any JSON value), a kind and maybe the name of a format or field; gives
`Document`, `Conversation` or (through preferences.py) `Preference` samples, or a `SchemaError` that says in
a sentence why not. Knows nothing of files, cleaning or tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mengya.data.ingest.columns import answer, question, system, tools
from mengya.data.ingest.fields import Fields
from mengya.data.ingest.messages import (
    SchemaError,
    as_messages,
    as_object,
    as_text,
    as_tools,
    history,
    json_type,
    known_fields,
)  # fmt: skip
from mengya.tokenizer.message import Message

QUESTION_ANSWER = (
    ("prompt", "response"), ("prompt", "completion"), ("question", "answer"), ("query", "response"),
    ("q", "a"), ("ask", "answer"), ("prompt", "answer"), ("input", "output"), ("input", "target"),
    ("instruct", "output"), ("question", "response"), ("query", "answer"), ("prompt", "output"),
    ("human", "assistant"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Document:
    """A text to continue."""

    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages with at least one assistant turn, the last of them; `tools` are JSON schemas or None.

    Attributes:
        cut: turns of the record after those, which are left out.
    """

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    cut: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Preference:
    """Two continuations of one prompt, each with at least one assistant turn."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: list[dict[str, Any]] | None = None


Sample = Document | Conversation | Preference


def to_document(value: Any, field: str | list[str]) -> Document:
    """The text in `field`; several fields are joined by line breaks, missing or empty ones are skipped.

    `a[].b` is the field b of every object in the list a that is not null, joined by line breaks.
    """
    fields = as_object(value)
    if isinstance(field, str):
        return Document(_text_at(fields, field))
    if not any(name.partition("[].")[0] in fields for name in field):
        raise SchemaError(f"none of the fields {', '.join(field)}; {known_fields(fields)}")
    filled = (name for name in field if fields.get(name.partition("[].")[0]))
    return Document("\n".join(_text_at(fields, name) for name in filled))


def _text_at(fields: Mapping[str, Any], name: str) -> str:
    listed, dots, inner = name.partition("[].")
    if not dots:
        return as_text(fields, name)
    if listed not in fields:
        raise SchemaError(f"no field {listed!r}; {known_fields(fields)}")
    if not isinstance(fields[listed], list):
        raise SchemaError(f"field {listed!r} is {json_type(fields[listed])}, not a list")
    items = map(as_object, fields[listed])
    return "\n".join(_text_at(item, inner) for item in items if item.get(inner, "") is not None)


def to_conversation(value: Any, format: str | None = None) -> Conversation:
    """A conversation in one of `CONVERSATION_FORMATS`, or in whichever of them the record has the fields of.

    What follows the last assistant turn that is learned is cut off, since no loss is taken on it.
    """
    conversation = CONVERSATION_FORMATS[format or detect_conversation(value)](value)
    messages = conversation.messages
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        raise SchemaError("no assistant turn")
    learned = [i for i in answers if messages[i].get("train", True)]
    messages = messages[: (learned or answers)[-1] + 1]
    cut = len(conversation.messages) - len(messages)
    if not any(message["role"] in ("user", "tool") for message in messages):
        raise SchemaError("no user turn before the assistant's")
    return Conversation(messages, conversation.tools, cut)


def detect_conversation(value: Any) -> str:
    """The name of the first format in `CONVERSATION_FORMATS` whose fields are there."""
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return "alpaca_turns"
    fields = as_object(value)
    for name, keys in (
        ("messages", "messages"),
        ("sharegpt", "conversations"),
        ("dialog", "dialog"),
    ):
        if keys in fields:
            return name
    if "conversation" in fields:
        return "turns"
    if "instruction" in fields and "output" in fields:
        refuse_ambiguous(fields, "alpaca")
        return "alpaca"
    if any(q in fields and a in fields for q, a in QUESTION_ANSWER):
        refuse_ambiguous(fields, "question_answer")
        return "question_answer"
    raise SchemaError(f"no known conversation format; {known_fields(fields)}")


def refuse_ambiguous(fields: Fields, found: str) -> None:
    """Refuse two columns that both could be the question, or the answer, unless they say the same."""
    questions = ["instruction", *dict.fromkeys(q for q, _ in QUESTION_ANSWER)]
    answers = list(dict.fromkeys(a for _, a in QUESTION_ANSWER))
    if found == "alpaca":
        questions.remove("input")  # part of the question
    for what, names in (("question", questions), ("answer", answers)):
        filled = [name for name in names if fields.is_filled(name)]
        rest = [name for name in filled if not fields.same(name, filled[0])]
        if rest:
            raise SchemaError(
                f"{filled[0]!r} and {rest[0]!r} could both be the {what}; write format: {found} in the "
                f"source to take {_taken(fields, found)} and leave the other out, or rename one"
            )


def _taken(fields: Fields, found: str) -> str:
    if found == "alpaca":
        return "'instruction' -> 'output'"
    pair = next((q, a) for q, a in QUESTION_ANSWER if q in fields and a in fields)
    return f"{pair[0]!r} -> {pair[1]!r}"


def alpaca_prompt(fields: Mapping[str, Any]) -> list[Message]:
    """system, history, and instruction with input below it."""
    instruction, given = _alpaca_text(fields, "instruction"), fields.get("input")
    if given is not None and not isinstance(given, str):
        raise SchemaError(f"field 'input' is {json_type(given)}, not a string")
    user = "\n".join(text for text in (instruction, given) if text)
    return [*system(fields), *history(fields.get("history")), question(fields, user)]


def _messages(key: str) -> Callable[[Any], Conversation]:
    def convert(value: Any) -> Conversation:
        fields = as_object(value)
        if key not in fields:
            raise SchemaError(f"no field {key!r}; {known_fields(fields)}")
        messages = as_messages(fields[key])
        functions = tools(fields)
        if not functions and isinstance(fields[key][0], dict):
            # some data sets put them into the system message
            functions = as_tools(fields[key][0].get("tools"))
        head = system(fields) if messages[0]["role"] != "system" else []
        return Conversation(head + messages, functions)

    return convert


def _alpaca(value: Any) -> Conversation:
    fields = as_object(value)
    reply = answer(fields, _alpaca_text(fields, "output"))
    return Conversation([*alpaca_prompt(fields), reply], tools(fields))


def _alpaca_turns(value: Any) -> Conversation:
    if not isinstance(value, list) or not value:
        raise SchemaError(f"{json_type(value)} where a list of alpaca turns was expected")
    return Conversation([message for turn in value for message in _alpaca(turn).messages])


def _turns(value: Any) -> Conversation:
    fields = as_object(value)
    turns = fields.get("conversation")
    if not isinstance(turns, list) or not turns:
        raise SchemaError("field 'conversation' is not a list of {input, output}")
    messages: list[Message] = []
    for turn in map(as_object, turns):
        head = system(turn) if not messages else []
        messages += [*head, {"role": "user", "content": as_text(turn, "input")}]
        messages.append(answer(turn, as_text(turn, "output")))
    return Conversation(messages)


def _question_answer(value: Any) -> Conversation:
    fields = as_object(value)
    pair = next(((q, a) for q, a in QUESTION_ANSWER if q in fields and a in fields), None)
    if pair is None:
        raise SchemaError(f"no question with an answer; {known_fields(fields)}")
    asked, replied = (fields[name] for name in pair)
    if isinstance(asked, list) and isinstance(replied, list):  # TRL's prompt and completion
        return Conversation(as_messages(asked) + as_messages(replied), tools(fields))
    user = question(fields, as_text(fields, pair[0]))
    reply = answer(fields, as_text(fields, pair[1]))
    head = [*system(fields), *history(fields.get("history"))]
    return Conversation([*head, user, reply], tools(fields))


CONVERSATION_FORMATS: dict[str, Callable[[Any], Conversation]] = {
    "messages": _messages("messages"),
    "sharegpt": _messages("conversations"),
    "dialog": _messages("dialog"),
    "turns": _turns,
    "alpaca": _alpaca,
    "alpaca_turns": _alpaca_turns,
    "question_answer": _question_answer,
}


def _alpaca_text(fields: Mapping[str, Any], name: str) -> str:
    """A string, or a list of one string as some medical sets have it."""
    value = fields.get(name)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return value[0]
    if name == "instruction" and name not in fields and "input" in fields:
        return ""
    return as_text(fields, name)

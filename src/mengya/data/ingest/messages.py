"""Raw turns, tools and histories of any known format -> messages as chat templates take them.

What does not fit raises `SchemaError`, whose text is the reason. Knows nothing of complete records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mengya.data.ingest.fields import Fields, without_nulls
from mengya.tokenizer.message import Message

ROLES = {
    "system": "system", "developer": "system", "系统": "system",
    "user": "user", "human": "user", "client": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant", "counselor": "assistant", "ai": "assistant", "chatbot": "assistant",
    "用户": "user", "人类": "user", "客户": "user", "患者": "user", "病人": "user", "学生": "user",
    "助手": "assistant", "助理": "assistant", "机器人": "assistant", "模型": "assistant",
    "客服": "assistant", "医生": "assistant", "老师": "assistant",
    "function_call": "call", "tool_call": "call",
    "tool": "tool", "observation": "tool", "function": "tool", "function_response": "tool",
    "tool_response": "tool",
}  # fmt: skip


_THINK = re.compile(
    r"\s*<think>(?P<reasoning>((?!<think>).)*?)</think>"
    r"|(?P<unopened>((?!<think>).)*?)(?:^|(?<=\n))</think>[ \t]*(?:\n|$)",
    re.DOTALL,
)
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_RESPONSE = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)
_RESPONSES = re.compile(rf"(?:{_RESPONSE.pattern}\s*)+", re.DOTALL)
TRAIN_FLAGS = ("weight", "loss", "train", "loss_mask")


class SchemaError(ValueError):
    """The record does not have the form it should have; the message is the reason."""


def as_object(value: Any) -> Fields:
    """The fields of an object; a `Fields` stays itself, so that it knows all that is read of it."""
    if isinstance(value, Fields):
        return value
    if not isinstance(value, dict):
        raise SchemaError(f"{json_type(value)} where an object was expected")
    return Fields(value)


def as_text(fields: Mapping[str, Any], name: str) -> str:
    if name not in fields:
        raise SchemaError(f"no field {name!r}; {known_fields(fields)}")
    if not isinstance(fields[name], str):
        raise SchemaError(f"field {name!r} is {json_type(fields[name])}, not a string")
    return fields[name]


def as_messages(turns: Any) -> list[Message]:
    """A list of {role, content} or {from, value} with any of the known role names -> messages."""
    if not isinstance(turns, list) or not turns:
        raise SchemaError(f"the turns are {json_type(turns)}, not a list of messages")
    messages = [message for turn in turns for message in as_tool_results(as_message(turn))]
    spoken = [m for m in messages if m["role"] != "system" or m["content"].strip()]
    if not spoken:
        raise SchemaError("the turns are one empty system turn")
    return spoken


def as_message(turn: Any) -> Message:
    turn = as_object(turn)
    name = turn.get("role", turn.get("from"))
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if name is None:
        raise SchemaError(f"a turn without a role; {known_fields(turn)}")
    if role is None:
        raise SchemaError(f"unknown role {name!r}; known are {', '.join(ROLES)}")
    content = _content(turn.get("content", turn.get("value")))
    if role == "call":
        calls = {"role": "assistant", "content": "", "tool_calls": _tool_calls(content)}
        return calls | _train_flag(turn)
    message: Message = {"role": role, "content": content}
    if role == "assistant":
        message = assistant(content) | _train_flag(turn)
        for name in ("tool_calls", "function_call"):
            if turn.get(name):
                calls = _tool_calls(turn[name])
                if message.get("tool_calls", calls) != calls:
                    raise SchemaError(f"{name} differ from the calls that the turn also has")
                message["tool_calls"] = calls
        if turn.get("content", turn.get("value")) is None and "tool_calls" not in message:
            raise SchemaError("an assistant turn without content")
        for name in ("reasoning_content", "reasoning"):  # "" is the empty block of no thinking
            if turn.get(name) or (turn.get(name) == "" and "reasoning_content" not in message):
                message["reasoning_content"] = as_text(turn, name)
    elif "content" not in turn and "value" not in turn:
        raise SchemaError(f"a {role} turn without content")
    return message


def assistant(content: str) -> Message:
    """An assistant turn; reasoning and calls that its text spells out become fields, as templates write them.

    Known are `<think>...</think>` at the start (or just what closes it, on a line of its own), and
    `<tool_call>{...}</tool_call>` blocks at the end.
    """
    message: Message = {"role": "assistant"}
    if found := _THINK.match(content):
        message["reasoning_content"] = (found["reasoning"] or found["unopened"] or "").strip()
        content = content[found.end() :].lstrip("\r\n")
    calls = list(_CALL.finditer(content))
    if calls:
        between = _CALL.sub("", content[calls[0].start() :])
        if between.strip():
            raise SchemaError("text behind a <tool_call> block of the same turn")
        content = content[: calls[0].start()].rstrip()
        message["tool_calls"] = [one for call in calls for one in _tool_calls(call[1])]
    return {**message, "content": content}


def as_tool_results(message: Message) -> list[Message]:
    """A tool turn that spells out `<tool_response>` blocks as one turn a block; others as they are."""
    content = message["content"].strip()
    if message["role"] != "tool" or not _RESPONSES.fullmatch(content):
        return [message]
    return [{**message, "content": found[1].strip()} for found in _RESPONSE.finditer(content)]


def _train_flag(turn: Fields) -> Message:
    """{"train": False} when a flag of the turn says that it is not to be learned."""
    flags = {name: turn[name] for name in TRAIN_FLAGS if name in turn and turn[name] is not None}
    for name, value in flags.items():
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise SchemaError(f"{name} of a turn is {value!r}; only 0, 1, false and true are known")
    if len({bool(value) for value in flags.values()}) > 1:
        raise SchemaError(f"{' and '.join(flags)} of a turn say different things")
    return {"train": False} if flags and not any(flags.values()) else {}


def as_tools(value: Any) -> list[dict[str, Any]] | None:
    """Functions, maybe as JSON text -> [{"type": "function", "function": {...}}], None when empty."""
    tools = _parsed(value, "tools")
    if not tools:
        return None
    if not isinstance(value, str):
        tools = without_nulls(tools)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise SchemaError(f"tools are {json_type(tools)}, not a list of objects")
    wrapped = [
        tool if "function" in tool else {"type": "function", "function": tool} for tool in tools
    ]
    if not all(
        isinstance(t["function"], dict) and isinstance(t["function"].get("name"), str)
        for t in wrapped
    ):
        raise SchemaError("a tool without a name")
    return wrapped


def history(value: Any) -> list[Message]:
    """[[question, answer], ...] -> messages; None and "" are no history."""
    if value is None or value == "":
        return []
    messages: list[Message] = []
    for turn in value if isinstance(value, list) else [value]:
        if not (
            isinstance(turn, list)
            and len(turn) == 2
            and all(isinstance(text, str) for text in turn)
        ):
            raise SchemaError("history is not a list of [question, answer]")
        messages += [
            {"role": "user", "content": turn[0]},
            assistant(turn[1]),
        ]
    return messages


def _content(value: Any) -> str:
    """A string, or the text parts of a list of parts."""
    if value is None:
        return ""
    if isinstance(value, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in value
    ):
        return "".join(as_text(part, "text") for part in value)
    if not isinstance(value, str):
        raise SchemaError(f"the content of a turn is {json_type(value)}, not a string")
    return value


def _tool_calls(value: Any) -> list[dict[str, Any]]:
    calls = _parsed(value, "a tool call")
    calls = calls if isinstance(calls, list) else [calls]
    found = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise SchemaError("a tool call without a name")
        found.append(
            {
                "type": "function",
                "function": {
                    "name": function["name"],
                    "arguments": _arguments(function["name"], function.get("arguments")),
                },
            }
        )
    return found


def _arguments(name: str, value: Any) -> dict[str, Any]:
    """An object, or JSON text of one; nothing at all is no arguments."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value, parse_constant=_no_constant)
        except ValueError:
            raise SchemaError(f"the arguments of a call of {name!r} are not JSON") from None
    else:
        value = without_nulls(value) or {}
    if not isinstance(value, dict):
        raise SchemaError(
            f"the arguments of a call of {name!r} are {json_type(value)}, not an object"
        )
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parsed(value: Any, what: str) -> Any:
    if not isinstance(value, str) or not value.strip():
        return value if not isinstance(value, str) else None
    try:
        return json.loads(value)
    except ValueError:
        raise SchemaError(f"{what} is text that is not JSON") from None


def known_fields(fields: Mapping[str, Any]) -> str:
    names = ", ".join(str(name) for name in list(fields)[:8])
    return f"the record has {names or 'no fields'}"


def json_type(value: Any) -> str:
    names = {
        type(None): "null",
        bool: "a boolean",
        str: "a string",
        list: "a list",
        dict: "an object",
        int: "a number",
        float: "a number",
        bytes: "bytes",
    }
    return names.get(type(value), f"of type {type(value).__name__}")

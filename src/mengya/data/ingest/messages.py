"""Raw turns, tools and histories of any known format -> messages as chat templates take them.

What does not fit raises `SchemaError`, whose text is the reason. Knows nothing of complete records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

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


class SchemaError(ValueError):
    """The record does not have the form it should have; the message is the reason."""


def as_object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SchemaError(f"{json_type(value)} where an object was expected")
    return value


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
    messages = [as_message(turn) for turn in turns]
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
        return {"role": "assistant", "content": "", "tool_calls": _tool_calls(content)}
    message: Message = {"role": role, "content": content}
    if role == "assistant":
        if turn.get("tool_calls"):
            message["tool_calls"] = _tool_calls(turn["tool_calls"])
        elif turn.get("content", turn.get("value")) is None:
            raise SchemaError("an assistant turn without content")
        if turn.get("reasoning_content"):
            message["reasoning_content"] = as_text(turn, "reasoning_content")
    elif "content" not in turn and "value" not in turn:
        raise SchemaError(f"a {role} turn without content")
    return message


def as_tools(value: Any) -> list[dict[str, Any]] | None:
    """Functions, maybe as JSON text -> [{"type": "function", "function": {...}}], None when empty."""
    tools = _parsed(value, "tools")
    if not tools:
        return None
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
            {"role": "assistant", "content": turn[1]},
        ]
    return messages


def system(fields: Mapping[str, Any]) -> list[Message]:
    return (
        [{"role": "system", "content": as_text(fields, "system")}] if fields.get("system") else []
    )


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
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            with suppress(ValueError):  # what is not JSON stays text, as a template writes it
                arguments = json.loads(arguments)
        found.append(
            {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
        )
    return found


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

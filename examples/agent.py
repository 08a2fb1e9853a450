"""A small agent over mengya's API: the model chooses tools, this program runs them, until there is an answer.

    mengya serve runs/my/sft
    python examples/agent.py "三点二公里是多少米？"

The tools only compute: an expression is parsed and its nodes are looked up in a table, nothing that
a model writes is ever executed. Needs `pip install openai`.

The model must know tools from its SFT data and have room for their descriptions: the model of
`mengya demo` has neither (the tools take some 950 of its tokens, its context is 512), and the agent says so.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import operator
import os
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

try:
    import openai
except ModuleNotFoundError:
    sys.exit("the agent talks to the server with OpenAI's client: pip install openai")

MAX_ROUNDS = 8
_LONGEST_EXPRESSION = 200
_LARGEST_POWER = 10_000  # bits of the result: 2 ** 10 ** 10 would fill the memory

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
# Unit -> (what it measures, how many of that measure's first unit it is).
_UNITS: dict[str, tuple[str, float]] = {
    "m": ("length", 1), "km": ("length", 1000), "cm": ("length", 0.01), "mm": ("length", 0.001),
    "mi": ("length", 1609.344), "ft": ("length", 0.3048), "in": ("length", 0.0254), "里": ("length", 500),
    "kg": ("mass", 1), "g": ("mass", 0.001), "t": ("mass", 1000), "lb": ("mass", 0.45359237),
    "斤": ("mass", 0.5), "两": ("mass", 0.05),
    "l": ("volume", 1), "ml": ("volume", 0.001), "m3": ("volume", 1000),
    "s": ("time", 1), "min": ("time", 60), "h": ("time", 3600), "d": ("time", 86400),
}  # fmt: skip


class ToolError(Exception):
    """The message that the model gets when a tool call fails."""


def calculate(expression: str) -> float | int:
    """The value of an arithmetic expression: numbers, + - * / // % **, parentheses.

    Raises:
        ToolError: anything else, or a result that is no finite number.
    """
    if len(expression) > _LONGEST_EXPRESSION:
        raise ToolError(f"an expression has at most {_LONGEST_EXPRESSION} characters")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ToolError(f"not an arithmetic expression: {expression!r}") from error
    except ZeroDivisionError as error:
        raise ToolError("division by zero") from error
    except OverflowError as error:
        raise ToolError("the result is too large") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise ToolError("the result is no finite number")
    return value


def _value(node: ast.expr) -> float | int:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left), _value(right))
    raise ToolError(f"{type(node).__name__} is not arithmetic")


def _power(base: float | int, exponent: float | int) -> float | int:
    if abs(exponent) * math.log2(max(abs(base), 2)) > _LARGEST_POWER:
        raise ToolError("the result is too large")
    value = base**exponent
    if isinstance(value, complex):
        raise ToolError("the result is no real number")
    return value


def now(timezone: str = "Asia/Shanghai") -> str:
    """Date and time there, such as 2026-11-24 08:30:00 Tuesday.

    Raises:
        ToolError: no such time zone.
    """
    try:
        return datetime.now(ZoneInfo(timezone)).strftime("%Y-%m-%d %H:%M:%S %A")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ToolError(f"no time zone is named {timezone!r}; write Asia/Shanghai") from error


def convert(value: float, source: str, target: str) -> float:
    """`value` of one unit in another, temperatures (C, F, K) included.

    Raises:
        ToolError: unknown units, or units of different things.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ToolError(f"{value!r} is no number")
    if {source, target} <= {"C", "F", "K"}:
        celsius = {"C": value, "F": (value - 32) / 1.8, "K": value - 273.15}[source]
        found = {"C": celsius, "F": celsius * 1.8 + 32, "K": celsius + 273.15}[target]
        return round(found, 6)
    for unit in (source, target):
        if unit not in _UNITS:
            raise ToolError(f"unknown unit {unit!r}; known: {', '.join([*_UNITS, 'C', 'F', 'K'])}")
    (kind, factor), (other, divisor) = _UNITS[source], _UNITS[target]
    if kind != other:
        raise ToolError(f"{source} measures {kind}, {target} measures {other}")
    return float(f"{value * factor / divisor:.12g}")


def _tool(name: str, description: str, **properties: dict[str, Any]) -> dict[str, Any]:
    required = [key for key, schema in properties.items() if "default" not in schema]
    parameters = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


TOOLS = [
    _tool("calculate", "计算一个算式", expression={"type": "string", "description": "如 (1+2)*3"}),
    _tool("now", "现在的日期和时间", timezone={"type": "string", "default": "Asia/Shanghai"}),
    _tool(
        "convert",
        "换算单位",
        value={"type": "number"},
        source={"type": "string", "description": "原来的单位，如 km"},
        target={"type": "string", "description": "要换成的单位，如 m"},
    ),
]
_FUNCTIONS: dict[str, Callable[..., Any]] = {"calculate": calculate, "now": now, "convert": convert}


def run_tool(name: str, arguments: str) -> str:
    """The result of a call as JSON; {"error": reason} for whatever is wrong with it."""
    try:
        if name not in _FUNCTIONS:
            raise ToolError(f"no tool is named {name!r}; there are {', '.join(_FUNCTIONS)}")
        try:
            given = json.loads(arguments)
            result = _FUNCTIONS[name](**given)
        except (ValueError, TypeError, AttributeError) as error:
            raise ToolError(f"these are no arguments of {name}: {arguments[:200]}") from error
    except ToolError as error:
        return json.dumps({"error": str(error)}, ensure_ascii=False)
    return json.dumps({"result": result}, ensure_ascii=False)


def run_agent(
    client: openai.OpenAI,
    model: str,
    question: str,
    *,
    on_call: Callable[[str, str, str], None] = lambda name, arguments, result: None,
    **settings: Any,
) -> str:
    """Ask, run the tools that are called, and ask again, until the model answers.

    Args:
        on_call: called after each call with name, arguments and result.
        settings: further arguments of chat.completions.create.

    Raises:
        RuntimeError: no answer after `MAX_ROUNDS` rounds.
    """
    messages: list[Any] = [{"role": "user", "content": question}]
    for _ in range(MAX_ROUNDS):
        reply = client.chat.completions.create(
            **{"model": model, "messages": messages, "tools": TOOLS, **settings}
        )
        message = reply.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return message.content or ""
        for call in message.tool_calls:
            result = run_tool(call.function.name, call.function.arguments)
            on_call(call.function.name, call.function.arguments, result)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise RuntimeError(f"no answer after {MAX_ROUNDS} rounds of tools")


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask a model that may use tools.")
    parser.add_argument("question")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", help="default: the server's first")
    chosen = parser.parse_args()
    key = os.environ.get("MENGYA_API_KEY", "none")
    client = openai.OpenAI(base_url=chosen.url, api_key=key)

    def show(name: str, arguments: str, result: str) -> None:
        sys.stderr.write(f"  {name} {arguments} -> {result}\n")

    try:
        model = chosen.model or _first_model(client)
        answer = run_agent(client, model, chosen.question, on_call=show)
    except (openai.OpenAIError, RuntimeError) as error:
        sys.exit(explain(error, chosen.url))
    sys.stdout.write(answer + "\n")


def _first_model(client: openai.OpenAI) -> str:
    names = [card.id for card in client.models.list()]
    if not names:
        raise RuntimeError("the server has no model")
    return names[0]


def explain(error: Exception, url: str) -> str:
    """What went wrong, in a few lines, and what to type."""
    match error:
        case openai.APIConnectionError():
            return (
                f"no server answers at {url}. Start one in another terminal:\n"
                "    mengya serve runs/my/sft\n"
                "and wait for its address, or name another address with --url"
            )
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return f"{_said(error)}; type the server's key before the command: MENGYA_API_KEY=... python ..."
        case openai.BadRequestError(code="context_length_exceeded"):
            return (
                f"{_said(error)}.\nThe descriptions of the tools take most of that. The agent needs a model "
                "with a longer context that learned to call tools;\nthe demo's model has 512 tokens and no "
                "tools in its data. In your recipes: model.max_position_embeddings and data.sequence_length "
                "of 2048,\nand conversations with tools (docs/data_format.md), then: mengya serve runs/my/sft"
            )
        case openai.APIStatusError():
            return f"the server refuses: {_said(error)}"
        case _:
            return str(error)


def _said(error: openai.APIStatusError) -> str:
    """The server's own message, without the status and the JSON around it."""
    body = error.body
    return str(body["message"]) if isinstance(body, dict) and "message" in body else error.message


if __name__ == "__main__":
    main()

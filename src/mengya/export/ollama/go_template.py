"""The part of Go's text/template that our Modelfiles use, to prove what was written.

Texts, `{{ if }}`, `else if`, `else`, `range`, `end`, fields, `(index .Messages 0).Role`, string literals and
eq, ne, and, or, not. Values are dicts, lists and strings; what is missing is false and prints as nothing,
as with ollama's missingkey=zero. tests/export/ollama compare it with Go itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_ACTION = re.compile(r'\{\{((?:"(?:[^"\\]|\\.)*"|[^"])*?)\}\}', re.DOTALL)
_WORD = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\(|\)|\.?[\w.]+|\.)')


@dataclass(frozen=True)
class _If:
    branches: list[tuple[str, list[Any]]]  # condition ("" of else), nodes


@dataclass(frozen=True)
class _Range:
    over: str
    nodes: list[Any]


@dataclass(frozen=True)
class _Print:
    expression: str


def render(template: str, values: Mapping[str, Any]) -> str:
    """The text of the template for these values.

    Raises:
        ValueError: it uses more of the language than is known here.
    """
    nodes, ended = _nodes(_pieces(template))
    if ended:
        raise ValueError(f"{{{{ {ended} }}}} closes nothing")
    return "".join(_texts(nodes, values))


def _pieces(template: str) -> Iterator[tuple[bool, str]]:
    """(is an action, text)."""
    end = 0
    for found in _ACTION.finditer(template):
        yield False, template[end : found.start()]
        yield True, found[1].strip()
        end = found.end()
    yield False, template[end:]


def _nodes(pieces: Iterator[tuple[bool, str]]) -> tuple[list[Any], str]:
    """Nodes up to the `end` or `else` that closes them, and that word."""
    nodes: list[Any] = []
    for is_action, text in pieces:
        word, _, rest = text.partition(" ")
        if not is_action:
            nodes.append(text)
        elif word in ("end", "else"):
            return nodes, text
        elif word == "if":
            nodes.append(_If(_branches(pieces, rest)))
        elif word == "range":
            inner, _ = _nodes(pieces)
            nodes.append(_Range(rest, inner))
        else:
            nodes.append(_Print(text))
    return nodes, ""


def _branches(pieces: Iterator[tuple[bool, str]], condition: str) -> list[tuple[str, list[Any]]]:
    nodes, ended = _nodes(pieces)
    first = [(condition, nodes)]
    if ended == "end":
        return first
    following = ended.removeprefix("else").strip()
    return first + _branches(pieces, following.removeprefix("if").strip())


def _texts(nodes: list[Any], values: Any) -> Iterator[str]:
    for node in nodes:
        match node:
            case str():
                yield node
            case _Print():
                yield str(_value(node.expression, values) or "")
            case _Range():
                for item in _value(node.over, values) or ():
                    yield from _texts(node.nodes, item)
            case _If():
                for condition, inner in node.branches:
                    if not condition or _value(condition, values):
                        yield from _texts(inner, values)
                        break


def _value(expression: str, dot: Any) -> Any:
    words = _WORD.findall(expression)
    value, rest = _call(words, dot)
    if rest:
        raise ValueError(f"{expression!r} is not understood")
    return value


def _call(words: list[str], dot: Any) -> tuple[Any, list[str]]:
    """The value of words up to a closing parenthesis, and the words from there."""
    function, arguments = None, []
    if words and re.fullmatch(r"[a-z]+", words[0]):
        function, words = words[0], words[1:]
    while words and words[0] != ")":
        value, words = _operand(words, dot)
        arguments.append(value)
    if function is None:
        if len(arguments) != 1:
            raise ValueError("one value is expected")
        return arguments[0], words
    return _FUNCTIONS[function](*arguments), words


def _operand(words: list[str], dot: Any) -> tuple[Any, list[str]]:
    word, *rest = words
    if word == "(":
        value, rest = _call(rest, dot)
        if not rest or rest[0] != ")":
            raise ValueError("a parenthesis is not closed")
        rest = rest[1:]
        if rest and re.fullmatch(r"\.\w[\w.]*", rest[0]):
            return _field(value, rest[0]), rest[1:]
        return value, rest
    if word.startswith('"'):
        return re.sub(r"\\(U[0-9a-f]{8}|.)", _unescaped, word[1:-1]), rest
    if word.isdigit():
        return int(word), rest
    if word.startswith("."):
        return _field(dot, word), rest
    raise ValueError(f"{word!r} is not known")


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1][1:], 16)) if len(found[1]) > 1 else found[1]


def _field(value: Any, path: str) -> Any:
    for name in path.split("."):
        if name:
            value = (value or {}).get(name)
    return value


_FUNCTIONS: dict[str, Any] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "not": lambda a: not a,
    "and": lambda *values: next((v for v in values if not v), values[-1]),
    "or": lambda *values: next((v for v in values if v), values[-1]),
    "index": lambda items, i: items[i],
}

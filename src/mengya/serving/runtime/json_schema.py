"""JSON schemas of requests -> llguidance's matchers: what is read, what is enforced, what is not.

Imports nothing heavy: the process that tries schemas out (`schema_process`) starts with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mengya.runtime.optional import require

if TYPE_CHECKING:
    import llguidance

# As json.dumps writes, and so the chat template: white space anywhere else would only cost tokens.
_FORM = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
# States of the lexer are made while a reply grows, 1 to 2 kB each, and every reply has its own.
_MAX_LEXER_STATES = 50_000
_LITERALS = ("const", "enum", "default", "examples")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


@dataclass(frozen=True, slots=True)
class ReplySchema:
    """What a reply has to be.

    Attributes:
        strict: keywords that cannot be enforced are refused; else they are ignored.
        param: the request's field that holds it.
    """

    value: dict[str, Any]
    strict: bool
    param: str


def compile_schema(
    vocabulary: llguidance.LLTokenizer, schema: dict[str, Any], strict: bool
) -> tuple[llguidance.LLMatcher, list[str]]:
    """A matcher for JSON of `schema`, and what of the schema it ignores.

    Time and memory grow without a limit with some schemas: try them out in a process of their own.

    Raises:
        ValueError: no JSON schema, or a keyword that cannot be enforced; says which.
    """
    llguidance = require("llguidance", "serve")
    matcher = llguidance.LLMatcher
    limits = llguidance.LLParserLimits(max_lexer_states=_MAX_LEXER_STATES, verbose_errors=False)
    overrides: Any = _FORM if strict else {**_FORM, "lenient": True, "coerce_one_of": True}
    try:
        grammar = matcher.grammar_from_json_schema(with_references(schema), overrides=overrides)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    failed, notes = matcher.validate_grammar_with_warnings(grammar, vocabulary, limits=limits)
    if failed:
        raise ValueError(_one_line(notes))
    made = matcher(vocabulary, grammar, log_level=0, limits=limits)
    made.compute_bitmask()
    if made.is_error():
        raise ValueError(_one_line([made.get_error()]))
    return made, [_one_line([note]) for note in notes]


def call_schema(functions: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema of the JSON inside <tool_call>, for a call of any of `functions`.

    Args:
        functions: {"name", "parameters"?}, as in the `function` of an API tool.
    """
    # References are to the root of a function's own schema, which stands deeper in this one.
    arguments = {
        str(i): with_references(function.get("parameters") or {"type": "object"}, f"#/$defs/{i}")
        for i, function in enumerate(functions)
    }
    return {
        "$defs": arguments,
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "name": {"const": function["name"]},
                    "arguments": {"$ref": f"#/$defs/{i}"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for i, function in enumerate(functions)
        ],
    }


def with_references(schema: Any, root: str = "#") -> Any:
    """`schema` with its references to "#..." made to `root`, in ASCII as URIs are.

    Values (`const`, `enum`, `default`, `examples`) and names of properties stay what they are.
    """
    if isinstance(schema, list):
        return [with_references(item, root) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _keyword(key, value, root) for key, value in schema.items()}


def _keyword(key: str, value: Any, root: str) -> Any:
    if key in _LITERALS:
        return value
    if key in _MAPS and isinstance(value, dict):
        return {name: with_references(schema, root) for name, schema in value.items()}
    if key == "$ref" and isinstance(value, str):
        moved = root + value[1:] if value.startswith("#") else value
        return quote(moved, safe="#/$%:?&=+,;@!~*'().-_")
    return with_references(value, root)


def _one_line(messages: list[str]) -> str:
    return " ".join(" ".join(messages).split())[:300]

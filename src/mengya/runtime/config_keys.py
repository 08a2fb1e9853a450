"""What keys a configuration has: a list for people (`--keys`) and a JSON schema for editors (`--schema`)."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mengya.config import Config, config_class_in, is_list

_NAMES = {
    Path: "path",
    str: "text",
    int: "integer",
    float: "number",
    bool: "true | false",
    type(None): "null",
}


def describe(cls: type[Config], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(dotted key, type in YAML's words, default, help) of every field, nested configurations flattened.

    Of a list of configurations the keys of an item come after the list's own: `data.train[0].path`. A
    configuration that may be null has a line of its own too.
    """
    for name, field in cls.model_fields.items():
        key = f"{prefix}{name}"
        inner = config_class_in(field.annotation)
        listed = is_list(field.annotation)
        optional = type(None) in get_args(field.annotation)
        if inner is None or listed or optional:
            default = "required" if field.is_required() else _shown(field)
            yield key, type_name(field.annotation), default, (field.description or "").strip()
        if inner is not None:
            yield from describe(inner, f"{key}[0]." if listed else f"{key}.")


def recipe_schema(cls: type[Config]) -> dict[str, Any]:
    """The JSON schema of a recipe file: it may extend others, which hold the keys that it lacks."""
    schema = cls.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        _drop_required(part)
    path = {"type": "string"}
    extends = {
        "description": "Recipes whose values this one changes; relative to this file.",
        "anyOf": [path, {"type": "array", "items": path}],
    }
    schema["properties"] = {"extends": extends, **schema["properties"]}
    schema["patternProperties"] = {"^x-": {"description": "A place for anchors; left out."}}
    return schema


def _drop_required(part: dict[str, Any]) -> None:
    part.pop("required", None)
    for inner in part.get("anyOf", ()):  # PathConfig: a path, or an object
        inner.pop("required", None)


def _shown(field: Any) -> str:
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Config):
        default = default.model_dump(mode="json")
    return json.dumps(default, ensure_ascii=False, default=str)


def type_name(annotation: Any) -> str:
    """An annotation in the words of YAML: `integer | null`, `list of path`, `adamw | muon`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(inner[0])
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(type_name(a) for a in inner))
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (list, tuple):
        return f"list of {type_name(inner[0])}"
    if origin is dict:
        return f"mapping of {type_name(inner[0])} to {type_name(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return "mapping"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))

"""YAML and JSON as people mean them: a key that is given twice is an error, and 1e-3 is a number.

YAML 1.1, which PyYAML reads, keeps the last of two equal keys, and takes 1e-3 for text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:  # before `<<` is resolved, whose keys may be replaced
            if not isinstance(key, yaml.ScalarNode):
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines:
                raise yaml.YAMLError(
                    f"key {key.value!r} is given twice, in line {lines[name]} and line {line}"
                )
            lines[name] = line
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_object(path: Path) -> dict[str, Any]:
    """The object in a YAML or (by suffix) JSON file; {} where it cannot be read: then nothing is known."""
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else load_yaml(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def load_yaml(text: str) -> Any:
    """The value of a YAML document.

    Raises:
        yaml.YAMLError: it is none, a key is given twice, it is nested too deeply, or it holds itself.
    """
    value = within_depth(lambda: yaml.load(text, _Loader))
    within_depth(lambda: _refuse_circles(value, set(), set()))
    return value


def within_depth(read: Callable[[], T]) -> T:
    """What `read` gives; nesting that Python cannot follow is an error of the YAML.

    Raises:
        yaml.YAMLError: it is nested too deeply.
    """
    try:
        return read()
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None


def _refuse_circles(value: Any, around: set[int], known: set[int]) -> None:
    """Refuse a value that holds itself; whatever many aliases name is looked at once."""
    if not isinstance(value, dict | list) or id(value) in known:
        return
    if id(value) in around:
        raise yaml.YAMLError("an alias stands inside of its own anchor")
    around.add(id(value))
    for inner in value.values() if isinstance(value, dict) else value:
        _refuse_circles(inner, around, known)
    around.remove(id(value))
    known.add(id(value))


def load_value(text: str) -> Any:
    """The value of `key=value`: JSON, else YAML.

    Raises:
        yaml.YAMLError: it is neither, or a key is given twice.
    """
    try:
        return within_depth(lambda: json.loads(text, object_pairs_hook=_unique))
    except json.JSONDecodeError:
        return load_yaml(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise yaml.YAMLError(f"key {twice!r} is given twice")
    return values

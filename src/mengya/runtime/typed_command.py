"""The command of a configuration: what to type to get the same one again, recipes resolved."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator
from typing import Any

import yaml

from mengya.config import Config
from mengya.runtime.yaml_values import load_value


def typed_command(
    verb: str, config: Config, positional: str, leave_out: Collection[str] = ()
) -> str:
    """`mengya VERB VALUE key=value ...` with every key that is not at its default, in their order.

    Args:
        positional: the key whose value stands before the others: a text, or a list of them.
        leave_out: keys that change nothing of the result.
    """
    values = config.model_dump(mode="json", exclude_defaults=True, exclude={positional, *leave_out})
    value = getattr(config, positional)
    first = list(map(str, value)) if isinstance(value, list) else [str(value)]
    keys = [f"{key}={_value(value)}" for key, value in _flat(values)]
    return shlex.join(["mengya", *verb.split(), *first, *keys])


def _flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _value(value: Any) -> str:
    """As it is read back: a text that YAML takes for something else is quoted."""
    if isinstance(value, str):
        try:
            if load_value(value) == value:
                return value
        except yaml.YAMLError:
            pass
    return json.dumps(value, ensure_ascii=False)

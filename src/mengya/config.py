"""Typed configuration: a pydantic model filled from defaults < YAML (`extends:`) < overrides.

Takes a Config class, a recipe path and overrides (`key.sub=value`, or a mapping); gives an instance, or
one `UserError` that lists every problem. Knows nothing of what the values mean.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.functional_validators import BeforeValidator
from pydantic_core import CoreSchema

from mengya.errors import UserError, shown
from mengya.runtime.files import write_text
from mengya.runtime.yaml_values import load_value, load_yaml


class Config(BaseModel):
    """Base of every configuration: unknown keys are refused, the docstring under a field is its help."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True)
    text_field: ClassVar[str | None] = None
    """The field that a text alone stands for, where a validator reads one so."""


class PathConfig(Config):
    """A configuration with a `path`, which a path alone may stand for: FILE means {path: FILE}."""

    text_field = "path"

    @model_validator(mode="before")
    @classmethod
    def _plain_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler.resolve_ref_schema(handler(schema))]}


class _OneStandsForMany:
    """The JSON schema of `OneOrMany`, for editors."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many, many["items"]]}


T = TypeVar("T")
OneOrMany = Annotated[
    list[T],
    BeforeValidator(lambda value: [value] if isinstance(value, str | Path | dict) else value),
    _OneStandsForMany(),
]
"""A list; a single item is accepted as a list of one."""

C = TypeVar("C", bound=Config)


def load_config(
    cls: type[C],
    recipe: Path | None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> C:
    """Build `cls` from its defaults, then the recipe file, then overrides.

    Relative paths inside a recipe are relative to the working directory, as on the command line; only
    `extends:` is relative to the file that contains it.

    Args:
        overrides: `key.sub=value` and `key[0].sub=value` texts, whose values are read as JSON or YAML; or
            a mapping of such keys to values, where nested mappings merge with those of the recipe.

    Raises:
        UserError: with every unknown key, wrong type and impossible combination in one message.
    """
    values = read_recipe(recipe) if recipe is not None else {}
    problems: list[str] = []
    as_text = not isinstance(overrides, Mapping)
    for key, value in _parsed(overrides, problems) if as_text else overrides.items():
        try:
            parts = _parts(key)
            if not as_text:
                value = _merged_below(values, parts, value)
            values = _with(_spelled_out(cls, values, parts), parts, value, key)
        except ValueError as error:
            problems.append(str(error))
    config = None
    try:
        config = cls.model_validate(values)
    except ValidationError as error:
        problems += [_explain(cls, dict(item)) for item in error.errors()]
    if problems or config is None:
        where = f"{recipe}: " if recipe else ""
        lines = "\n".join(f"  - {problem}" for problem in problems)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise UserError(f"{where}{count} in the configuration of `{_verb(cls)}`:\n{lines}")
    return config


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration as YAML; `load_config` reads it back equal."""
    text = yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True, sort_keys=False)
    write_text(path, text)


def read_recipe(path: Path) -> dict[str, Any]:
    """The values of a YAML recipe, merged over those of the recipes that it `extends:`.

    Keys at its top that start with `x-` are a place for anchors (`x-short: &short {...}`) and are left out.

    Raises:
        UserError: a file is missing or no mapping, a key is given twice, or `extends:` is circular.
    """
    return _read_recipe(path, ())


def _read_recipe(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = Path(path)
    if path.resolve() in seen:
        chain = " -> ".join(str(p) for p in (*seen, path.resolve()))
        raise UserError(f"circular `extends`: {chain}")
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = [p.name for p in path.parent.glob("*.yaml") if p.exists()]  # no dangling links
        near = difflib.get_close_matches(path.name, names)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise UserError(f"recipe {path} does not exist{hint}") from None
    except IsADirectoryError:
        inside = ", ".join(sorted(p.name for p in path.glob("*.yaml")))
        raise UserError(
            f"recipe {path} is a folder; name a file" + (f" in it: {inside}" if inside else "")
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"recipe {path} cannot be read as YAML: {error}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise UserError(f"recipe {path} must be a mapping of keys to values, not a {kind}")
    values = {key: value for key, value in values.items() if not str(key).startswith("x-")}
    bases = values.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(
            f"recipe {path}: `extends` is the path of a recipe or a list of paths, got {shown(bases)}"
        )
    merged: dict[str, Any] = {}
    for base in bases:
        merged = _merge(merged, _read_recipe(path.parent / base, (*seen, path.resolve())))
    return _merge(merged, values)


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key; any other value of `high` replaces that of `low`."""
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _parsed(overrides: Sequence[str], problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Key and value of each `key.sub=value`; one that is none is added to `problems`."""
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            problems.append(f"{text!r} is not an override; write key.sub=value")
            continue
        try:
            yield key, load_value(value)
        except yaml.YAMLError as error:
            problems.append(f"{key}: {value!r} cannot be read as JSON or YAML: {error}")


_KEY = r"[^.\[\]]+(\.[^.\[\]]+|\[\d+\])*"


def _parts(key: str) -> list[str | int]:
    """`data.train[0].path` as [data, train, 0, path].

    Raises:
        ValueError: it is no key.
    """
    if not re.fullmatch(_KEY, key):
        raise ValueError(f"{key!r} is not a key; write key.sub=value or key[0].sub=value")
    found = re.findall(r"([^.\[\]]+)|\[(\d+)\]", key)
    return [name or int(index) for name, index in found]


def _with(old: Any, parts: Sequence[str | int], value: Any, key: str) -> Any:
    """`old` with `value` at `parts` below it; a position just after the end of a list adds to it.

    Where a list may be one item alone, position 0 is that item, and an item that is a path alone
    is `{path: ...}`.

    Raises:
        ValueError: what is there has no such place.
    """
    if not parts:
        return value
    part, *rest = parts
    if isinstance(old, list) and isinstance(part, str) and part.isdecimal():
        part = int(part)  # sources.0.path
    if isinstance(part, int):
        items = list(old) if isinstance(old, list) else [] if old is None else [old]
        if part > len(items):
            raise ValueError(f"{key}: position {part} of a list of {len(items)}, counted from 0")
        item = items[part] if part < len(items) else None
        if rest and isinstance(item, str):
            item = {"path": item}
        items[part : part + 1] = [_with(item, rest, value, key)]
        return items
    if isinstance(old, list):
        raise ValueError(f"{key}: a list is above {part!r}: write the position, [0] for the first")
    if old is not None and not isinstance(old, dict):
        raise ValueError(f"{key}: {part!r} is below the value {shown(old)}, which has no keys")
    old = old or {}
    return {**old, part: _with(old.get(part), rest, value, key)}


def _spelled_out(cls: type[Config], values: Any, parts: Sequence[str | int]) -> Any:
    """`values` where a text that stands for a section above the key is that section: {base: standard}."""
    name = parts[0]
    field = cls.model_fields.get(name) if isinstance(name, str) else None
    section = config_class_in(field.annotation) if field and not is_list(field.annotation) else None
    if len(parts) < 2 or section is None or not isinstance(values, dict) or name not in values:
        return values
    below = values[name]
    if isinstance(below, str) and section.text_field:
        below = {section.text_field: below}
    return {**values, name: _spelled_out(section, below, parts[1:])}


def _merged_below(values: Any, parts: Sequence[str | int], value: Any) -> Any:
    """`value` as YAML has it, merged over the mapping at `parts` when both are mappings."""
    for part in parts:
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            values = None
    value = _plain(value)
    both = isinstance(value, dict) and isinstance(values, dict)
    return _merge(values, value) if both else value


def _plain(value: Any) -> Any:
    """Paths as text, sequences as lists, mappings as dictionaries: what a recipe can hold."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _explain(cls: type[Config], item: dict[str, Any]) -> str:
    """One pydantic error as a sentence: the key, the value, the rule, and what was probably meant."""
    location = tuple(item["loc"])
    key = _dotted(location) or "the configuration"
    if item["type"] == "extra_forbidden":
        owner = _owner(cls, location[:-1])
        known = list(owner.model_fields) if owner else []
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.55)
        meant = _keys_named(cls, str(location[-1])) or [
            _dotted((*location[:-1], name)) for name in near
        ]
        hint = f"known here: {', '.join(known)}"
        if meant:
            hint = f"did you mean {' or '.join(map(repr, meant))}?"
        return f"{key}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{key}: is required; add it to the recipe, or write {_required(cls, location)}"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = _with_full_keys(cls, location, message)
    if item["type"] == "value_error" and isinstance(item["input"], dict):
        return f"{key}: {message}"
    return f"{key}: {message} (got {shown(item['input'])})"


def _keys_named(cls: type[Config], name: str, above: str = "") -> list[str]:
    """The full keys of that name; lists and mappings are not entered."""
    found = []
    for key, field in cls.model_fields.items():
        if key == name:
            found.append(f"{above}{key}")
        section = config_class_in(field.annotation)
        if section is not None and not is_list(field.annotation):
            found += _keys_named(section, name, f"{above}{key}.")
    return found


def _with_full_keys(cls: type[Config], location: tuple[int | str, ...], message: str) -> str:
    """`write lr=1` of a section's own rule as `write optimizer.lr=1`, which can be typed."""
    section = _owner(cls, location)
    if section is None:
        location = location[:-1]
        section = _owner(cls, location)
    if not location or section is None:
        return message
    names = "|".join(section.model_fields)
    return re.sub(rf"(?<![\w.=-])(?=(?:{names})=)", f"{_dotted(location)}.", message)


def _dotted(location: Sequence[int | str]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _required(cls: type[Config], location: tuple[int | str, ...]) -> str:
    """What to type of a key that is missing; of a section, the keys that it requires."""
    owner = _owner(cls, location[:-1])
    field = owner.model_fields[str(location[-1])] if owner is not None else None
    annotation = field.annotation if field is not None else None
    section = config_class_in(annotation)
    if section is not None and not is_list(annotation):
        names = [name for name, inner in section.model_fields.items() if inner.is_required()]
        if names:
            return " ".join(_required(cls, (*location, name)) for name in names)
        return f"{_dotted(location)}={{}}"
    typed = f"{_dotted(location)}={_placeholder(annotation)}"
    return f"'{typed}'" if "[" in typed else typed


def _placeholder(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return str(get_args(annotation)[0])
    names = {Path: "PATH", int: "NUMBER", float: "NUMBER"}
    inner = config_class_in(annotation)
    if annotation in names or (inner is not None and issubclass(inner, PathConfig)):
        return names.get(annotation, "PATH")
    return next((p for a in get_args(annotation) if (p := _placeholder(a)) != "VALUE"), "VALUE")


def is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(is_list, get_args(annotation)))


def _owner(cls: type[Config], location: tuple[int | str, ...]) -> type[Config] | None:
    """The config class that holds the key at `location`, list positions skipped."""
    owner: type[Config] | None = cls
    for part in location:
        if isinstance(part, int) or owner is None:
            continue
        field = owner.model_fields.get(part)
        owner = config_class_in(field.annotation) if field else None
    return owner


def config_class_in(annotation: Any) -> type[Config] | None:
    """The Config class inside an annotation such as `list[Source]` or `LoraConfig | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    return next((c for a in get_args(annotation) if (c := config_class_in(a))), None)


def _verb(cls: type[Config]) -> str:
    name = cls.__name__.removesuffix("Config").removesuffix("Params")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()

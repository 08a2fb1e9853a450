"""`--keys` for people and grep, `--schema` for editors: complete, in YAML's words, right for our recipes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from mengya import cli
from mengya.cli import VERBS, config_class_of
from mengya.runtime.config_keys import describe, recipe_schema
from mengya.runtime.yaml_values import load_yaml

ROOT = Path(__file__).parents[1]
RECIPES = sorted(p for p in ROOT.glob("recipes/**/*.yaml") if p.stem != "world")
STEMS = {"base": "pretrain", "preset": "pretrain", "stretch": "pretrain"}
TYPES: dict[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None),
    "array": list, "object": dict,
}  # fmt: skip


def errors(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "") -> list[str]:
    """What an editor would underline: the keywords that our schemas use (JSON Schema 2020-12)."""
    if "$ref" in schema:
        schema = {**root["$defs"][schema["$ref"].rpartition("/")[2]], **schema}
    if "anyOf" in schema:
        found = [errors(value, one, root, at) for one in schema["anyOf"]]
        return [] if [] in found else min(found, key=len)
    kind = TYPES.get(schema.get("type", ""), object)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind in (int, (int, float))):
        return [f"{at}: {value!r} is no {schema['type']}"]
    if value not in schema.get("enum", [value]) or schema.get("const", value) != value:
        return [f"{at}: {value!r}"]
    found = []
    if isinstance(value, list):
        for item in value:
            found += errors(item, schema.get("items", {}), root, f"{at}[]")
    if isinstance(value, dict):
        found += [f"{at}: {name} is missing" for name in {*schema.get("required", [])} - {*value}]
        for name, inner in value.items():
            known = schema.get("properties", {})
            patterns = [p for p in schema.get("patternProperties", {}) if re.search(p, str(name))]
            if name in known:
                found += errors(inner, known[name], root, f"{at}.{name}")
            elif not patterns and schema.get("additionalProperties") is False:
                found.append(f"{at}.{name} is unknown")
    return found


def verb_of(recipe: Path) -> str:
    stem = recipe.stem.partition("-")[0]
    return STEMS.get(stem, stem)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_an_editor_accepts_every_recipe_and_marks_a_wrong_key(recipe: Path) -> None:
    schema = recipe_schema(config_class_of(verb_of(recipe)))
    values = load_yaml(recipe.read_text(encoding="utf-8"))
    assert errors(values, schema, schema) == []
    assert errors({**values, "x-mine": 1, "extends": ["a.yaml"]}, schema, schema) == []
    assert errors({**values, "sede": 1}, schema, schema) == [".sede is unknown"]
    assert errors({**values, "extends": 3}, schema, schema)


@pytest.mark.parametrize("verb", VERBS)
def test_types_are_those_of_yaml(verb: str) -> None:
    for key, kind, _, _ in describe(config_class_of(verb)):
        assert not re.search(
            r"Annotated|Path|\bint\b|\bstr\b|bool|list\[|dict|None|Config", kind
        ), f"{key}: {kind}"


def test_keys_of_items_and_of_sections_that_may_be_null() -> None:
    rows = {row[0]: row[1:3] for row in describe(config_class_of("sft"))}
    assert rows["data.train"] == ("list of mapping", "required")
    assert rows["data.train[0].weight"] == ("number | null", "null")
    assert rows["lora"] == ("mapping | null", "null") and rows["lora.rank"][0] == "integer"
    assert rows["resume"] == ("true | false", "false")


def test_keys_are_a_line_each_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["mengya", "pretrain", "--keys"])
    with pytest.raises(SystemExit):
        cli.main()
    lines = capsys.readouterr().out.splitlines()
    rows = list(describe(config_class_of("pretrain")))
    assert [line.partition(":")[0] for line in lines] == [row[0] for row in rows]
    words = " ".join(rows[5][3].split())
    assert words in lines[5] and len(max(lines, key=len)) > 80
    json.dumps(recipe_schema(config_class_of("pretrain")))


def test_keys_are_wrapped_in_a_terminal_and_nothing_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "argv", ["mengya", "serve", "--keys"])
    with pytest.raises(SystemExit):
        cli.main()
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert max(map(len, shown.splitlines())) <= 80 and "…" not in shown
    words = re.sub(r"\s+", "", shown)
    for key, kind, _, text in describe(config_class_of("serve")):
        assert re.sub(r"\s+", "", f"{key}:{kind}") in words and re.sub(r"\s+", "", text) in words

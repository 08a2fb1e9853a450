"""Defaults < YAML < command line; every problem at once; saved and loaded equal."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import yaml
from pydantic import Field

from mengya.config import Config, load_config, save_config
from mengya.errors import UserError
from mengya.runtime.config_keys import describe


class Inner(Config):
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    name: Literal["adamw", "muon"] = "adamw"
    """Which optimizer."""


class Source(Config):
    path: Path
    """Where."""


class OuterConfig(Config):
    steps: int = 10
    """How many."""
    compile: bool = False
    """Whether to."""
    inner: Inner = Inner()
    sources: list[Source] = []
    """What to read."""


def write(path: Path, values: object) -> Path:
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return path


def test_command_line_beats_yaml_beats_default(tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", {"steps": 20, "inner": {"lr": 0.5}})
    assert load_config(OuterConfig, None).steps == 10
    assert load_config(OuterConfig, recipe).steps == 20
    config = load_config(OuterConfig, recipe, ["steps=30", "inner.lr=1e-4", "compile=true"])
    assert (config.steps, config.inner.lr, config.compile) == (30, 1e-4, True)
    assert load_config(OuterConfig, recipe, ["compile=false"]).compile is False


def test_extends_merges_mappings_and_replaces_the_rest(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", {"steps": 5, "inner": {"lr": 0.1, "name": "muon"}})
    recipe = write(tmp_path / "r.yaml", {"extends": "base.yaml", "inner": {"lr": 0.2}})
    config = load_config(OuterConfig, recipe)
    assert (config.steps, config.inner.lr, config.inner.name) == (5, 0.2, "muon")


def test_every_problem_is_reported_at_once_with_the_likely_key(tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", {"stesp": 5, "inner": {"lr": -1, "nam": "muon"}})
    with pytest.raises(UserError) as caught:
        load_config(OuterConfig, recipe, ["steps=many", "sources=[{}]", "nonsense"])
    message = str(caught.value)
    assert "6 problems" in message
    assert "stesp: unknown key; did you mean 'steps'?" in message
    assert "inner.nam: unknown key; did you mean 'inner.name'?" in message
    assert "inner.lr: Input should be greater than 0 (got -1)" in message
    assert "steps: Input should be a valid integer" in message and "'many'" in message
    assert "sources[0].path: is required" in message
    assert "'nonsense' is not an override" in message


def test_a_key_of_a_section_is_named_in_full() -> None:
    with pytest.raises(UserError, match=r"- lr: unknown key; did you mean 'inner.lr'\?"):
        load_config(OuterConfig, None, ["lr=0.1"])


def test_resolved_config_loads_back_equal(tmp_path: Path) -> None:
    config = load_config(OuterConfig, None, ["inner.lr=3e-4", 'sources=[{"path": "数据/a.jsonl"}]'])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(OuterConfig, tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "cannot be read as YAML"),
        ("- 1", "must be a mapping"),
        ("extends: r.yaml", "circular `extends`: .*r.yaml -> "),
    ],
)
def test_broken_recipes_are_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said) as caught:
        load_config(OuterConfig, recipe)
    assert "r.yaml" in str(caught.value)


def test_missing_recipe_names_the_near_one(tmp_path: Path) -> None:
    write(tmp_path / "pretrain.yaml", {})
    with pytest.raises(UserError, match=r"did you mean .*pretrain\.yaml"):
        load_config(OuterConfig, tmp_path / "pretrian.yaml")


def test_help_comes_from_the_field_docstrings() -> None:
    rows = {key: (kind, default, text) for key, kind, default, text in describe(OuterConfig)}
    assert rows["inner.lr"] == ("number", "0.001", "Peak learning rate.")
    assert rows["inner.name"][0] == "adamw | muon"
    properties = OuterConfig.model_json_schema()["properties"]
    assert properties["steps"]["description"] == "How many."


def test_a_mapping_overrides_as_text_does_and_merges_with_the_recipe(tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", {"steps": 5, "inner": {"lr": 0.1, "name": "muon"}})
    inner, paths = {"lr": 0.2}, [{"path": tmp_path}]
    config = load_config(OuterConfig, recipe, {"inner": inner, "sources": paths, "steps": 6})
    assert (config.steps, config.inner.lr, config.inner.name) == (6, 0.2, "muon")
    assert config.sources[0].path == tmp_path
    dotted = load_config(OuterConfig, recipe, {"inner": inner, "inner.name": "adamw"})
    assert (dotted.inner.lr, dotted.inner.name, inner) == (0.2, "adamw", {"lr": 0.2})
    with pytest.raises(
        UserError, match=r"steps.more: 'more' is below the value 5, which has no keys"
    ):
        load_config(OuterConfig, recipe, {"steps.more": 1})


def test_a_long_value_is_shortened_in_a_message() -> None:
    with pytest.raises(UserError, match=r"\(got 'xxx(x*)\.\.\.x*y'\)") as caught:
        load_config(OuterConfig, None, {"steps": "x" * 1000 + "y"})
    assert len(str(caught.value)) < 250

"""What no recipe or registry should hold: nesting without end."""

from __future__ import annotations

import pytest
import yaml

from mengya.runtime.yaml_values import load_value, load_yaml


@pytest.mark.parametrize("text", ["a: &a\n  b: *a\n", "a: &a [x, *a]\n", f"a: {'[' * 1000}"])
def test_endless_nesting_is_an_error_of_the_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match=r"nested too deeply|its own anchor"):
        load_yaml(text)


def test_a_deep_value_of_the_command_line_is_an_error_too() -> None:
    with pytest.raises(yaml.YAMLError, match="nested too deeply"):
        load_value("[" * 200_000)


def test_many_aliases_are_looked_at_once() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    assert len(load_yaml("\n".join(lines))) == 60

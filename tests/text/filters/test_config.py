"""Which sections are on: a base, and what is named next to it."""

from __future__ import annotations

import pytest

from mengya.config import Config, load_config
from mengya.errors import UserError
from mengya.text.filters.config import STANDARD, FilterConfig
from mengya.text.filters.pipeline import TextFilters


class Recipe(Config):
    filters: FilterConfig = FilterConfig()


def loaded(*overrides: str) -> FilterConfig:
    return load_config(Recipe, None, overrides).filters


def on(config: FilterConfig) -> set[str]:
    return {name for name in (*STANDARD, "simplify") if getattr(config, name) is not None}


def test_nothing_is_on_by_itself() -> None:
    assert not on(loaded())
    filters = TextFilters(loaded())
    assert filters.edit("<b>版权所有</b>") == ("<b>版权所有</b>", [])
    assert filters.reason("") is None


def test_standard_is_all_but_simplify() -> None:
    assert on(loaded("filters=standard")) == set(STANDARD)
    assert on(loaded("filters.base=standard")) == set(STANDARD)
    assert "simplify" not in STANDARD


def test_a_section_that_is_given_is_on_and_one_that_is_null_is_off() -> None:
    assert on(loaded("filters.pii.action=drop")) == {"pii"}
    assert on(loaded("filters.pii={}")) == {"pii"}
    both = loaded("filters=standard", "filters.pii=null", "filters.length.min_letters=20")
    assert on(both) == set(STANDARD) - {"pii"}
    assert both.length is not None and both.length.min_letters == 20
    from_python = load_config(Recipe, None, {"filters": "standard", "filters.html.remove": False})
    assert from_python.filters.html is not None and not from_python.filters.html.remove


def test_the_resolved_settings_give_the_same_settings() -> None:
    for config in (loaded("filters=standard", "filters.pii=null"), loaded("filters.html={}")):
        assert FilterConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("wrong", "rule", "remedy"),
    [
        ("filters=strict", "'none' or 'standard'", "filters=standard"),
        ("filters.length.max_letters=3", "write filters.length.max_letters=5", "filters.length={}"),
        (
            "filters.pii={action: drop, placeholders: {phone: 某号}}",
            "write filters.pii.action=replace",
            "filters.pii.action=replace",
        ),
        (
            "filters.pii={kinds: [email], placeholders: {phone: 某号}}",
            "write filters.pii.kinds=[email,phone]",
            "filters.pii.kinds=[email,phone]",
        ),
        ("filters.pii.kind=[phone]", "filters.pii.kinds", "filters.pii.kinds=[phone]"),
    ],
)  # fmt: skip
def test_a_wrong_setting_says_what_to_type(wrong: str, rule: str, remedy: str) -> None:
    with pytest.raises(UserError, match="1 problem") as error:
        loaded(wrong)
    assert rule in str(error.value)
    loaded(*([wrong] if "{" in wrong else []), remedy)

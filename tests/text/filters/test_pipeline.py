"""All edits and filters together: the standard keeps good texts of every kind to the letter."""

from __future__ import annotations

import pickle

import pytest

from mengya.errors import UserError
from mengya.runtime import optional
from mengya.text.filters.config import FilterConfig, SimplifyEdit
from mengya.text.filters.pipeline import TextFilters
from mengya.text.filters.simplify import Simplify
from tests.text.filters.texts import GOOD

STANDARD = FilterConfig(base="standard")


@pytest.mark.parametrize("kind", GOOD)
def test_standard_keeps_good_texts(kind: str) -> None:
    filters = TextFilters(STANDARD)
    assert filters.edit(GOOD[kind]) == (GOOD[kind], [])
    assert filters.reason(GOOD[kind]) is None


def test_edits_are_named_and_come_in_order() -> None:
    text = "<p>电话&#58;13912345678</p>\n<div>版权所有</div>\n" + GOOD["news"]
    edited = TextFilters(STANDARD).edit(text)
    assert edited.by == ["html", "boilerplate", "pii"]
    assert edited.text == f"电话:【手机号】\n{GOOD['news']}"
    assert TextFilters(STANDARD).edit(edited.text) == (edited.text, [])


def test_the_first_filter_that_drops_names_the_reason() -> None:
    filters = TextFilters(STANDARD, [lambda text: "mine" if "秘密" in text else None])
    assert filters.reason("好") == "too_few_letters"
    assert filters.reason("很好" * 9) == "low_information"
    assert filters.reason("这里写着一个秘密，谁也不知道。") == "mine"


def test_pii_drops_instead_when_it_is_told_so() -> None:
    filters = TextFilters(FilterConfig.model_validate({"pii": {"action": "drop"}}))
    text = "请打13912345678找我"
    assert filters.edit(text) == (text, [])
    assert filters.reason(text) == "pii"


def test_removing_can_be_switched_off() -> None:
    sections = {"html": {"remove": False}, "boilerplate": {"remove": False}}
    text = f"<b>版权所有</b>\n{GOOD['news']}"
    assert TextFilters(FilterConfig.model_validate(sections)).edit(text) == (text, [])


def test_the_settings_travel_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(STANDARD)) == STANDARD  # noqa: S301


def test_traditional_to_simplified() -> None:
    pytest.importorskip("opencc")
    assert (
        Simplify(SimplifyEdit())("皇后在後面，頭髮發亮，乾坤與乾燥")
        == "皇后在后面，头发发亮，乾坤与干燥"
    )
    with_words = Simplify(SimplifyEdit(conversion="tw2sp"))
    assert with_words("滑鼠與軟體裡的資料") == "鼠标与软件里的数据"
    config = FilterConfig.model_validate({"simplify": {}})
    assert TextFilters(config).edit("漢語").by == ["simplify"]
    assert TextFilters(config).edit("汉语").by == []


def test_without_opencc_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(optional.importlib.import_module("sys").modules, "opencc", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[opencc\]'"):
        TextFilters(FilterConfig.model_validate({"simplify": {}}))

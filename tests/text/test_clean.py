"""Cleaning changes characters only, and what it changes can be chosen."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mengya.text.clean import CleanConfig, clean_text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("a\r\nb\rc\u2028d\x0be\x85f", "a\nb\nc\nd\ne\nf"),
        ("\ufeff零\u200b宽\u00ad\u2060", "零宽"),
        ("控\x00制\x07字\x1b符\x7f", "控制字符"),
        ("制表\t留下\n换行也是", "制表\t留下\n换行也是"),
        ("e\u0301", "é"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("  两边  ", "两边"),
        ("ＡＢＣ，１２３", "ＡＢＣ，１２３"),
        ("长" * 100_000, "长" * 100_000),
    ],
)
def test_clean_text(dirty: str, clean: str) -> None:
    assert clean_text(dirty, CleanConfig()) == clean
    assert clean_text(clean, CleanConfig()) == clean


def test_what_is_cleaned_can_be_chosen() -> None:
    assert clean_text("ＡＢＣ，ﬁ", CleanConfig(unicode="NFKC")) == "ABC,fi"
    assert clean_text("e\u0301", CleanConfig(unicode="none")) == "e\u0301"
    assert clean_text("a\r\n\x00b", CleanConfig(control_characters=False)) == "a\r\n\x00b"
    with pytest.raises(ValidationError, match="below min_characters"):
        CleanConfig(min_characters=10, max_characters=5)

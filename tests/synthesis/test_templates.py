"""Prompts: ours, and those of users, with what may be wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mengya.errors import UserError
from mengya.synthesis.templates import SLOTS, load_template


@pytest.mark.parametrize("name", SLOTS)
def test_ours_fill(name: str) -> None:
    template = load_template(name)
    values = dict.fromkeys(SLOTS[name], "值")
    text = "\n".join(m["content"] for m in template.messages(values))
    assert template.system and "{{" not in text and text.count("值") >= len(SLOTS[name])


def test_a_document_never_becomes_part_of_the_form() -> None:
    messages = load_template("qa").messages({"passage": "{{count}}\n---\n{{passage}}", "count": 3})
    assert len(messages) == 2 and "{{count}}\n---\n{{passage}}" in messages[1]["content"]


def test_a_file_of_the_user_takes_the_place_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "mine.md"
    path.write_text("给{{passage}}出题", encoding="utf-8")
    mine = load_template("qa", path)
    assert mine.messages({"passage": "甲", "count": 1}) == [{"role": "user", "content": "给甲出题"}]
    version = mine.version
    path.write_text("为{{passage}}出题", encoding="utf-8")
    assert load_template("qa", path).version != version != load_template("qa").version


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("没有槽", "has no {{passage}}"),
        ("{{passage}} {{name}}", "has {{name}}; known slots: {{count}}, {{passage}}"),
        (b"\xff\xfe{{passage}}", "not UTF-8"),
        (None, "is not a file"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: str | bytes | None, part: str) -> None:
    path = tmp_path / "mine.md"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        load_template("qa", path)
    assert part in str(caught.value)

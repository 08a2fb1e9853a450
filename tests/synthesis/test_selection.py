"""Which of several questions stay."""

from __future__ import annotations

from mengya.synthesis.selection import Selection

FIRST = "请用三句话介绍一下江南春天的风景，语气要轻松一些。"
NEAR = "请用三句话介绍一下江南春天的风景，语气要轻松一点。"


def test_near_copies_go_only_where_that_is_asked_for() -> None:
    every, some = Selection(), Selection(drops_near=True)
    assert [every.is_new(text) for text in (FIRST, FIRST, NEAR)] == [None, "duplicate", None]
    assert [some.is_new(text) for text in (FIRST, NEAR)] == [None, "near_duplicate"]

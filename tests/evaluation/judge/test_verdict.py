"""What counts as a verdict, and what is never guessed."""

from __future__ import annotations

import pytest

from mengya.endpoint.messages import Completion
from mengya.evaluation.judge.verdict import Verdict, read_verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("甲更准确。\n裁决：甲", "first"),
        ("裁决:乙", "second"),
        ("都不错。\n\n**裁决：平**\n", "tie"),
        ("理由。\n裁决：【乙】。", "second"),
        ("<think>先看甲。\n裁决：甲？不对。</think>\n乙更好。\n裁决：乙", "second"),
        ("裁决：甲\n再看一遍，仍然是：\n裁决：甲", "first"),
    ],
)
def test_the_form_that_was_asked_for_is_read(text: str, verdict: Verdict) -> None:
    assert read_verdict(Completion("x", text)) == (verdict, None)


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("甲更好。", "no_verdict"),
        ("裁决：甲\n不过乙也不错。", "no_verdict"),
        ("裁决：甲乙", "no_verdict"),
        ("裁决：甲或乙", "no_verdict"),
        ("裁决：A", "no_verdict"),
        ("最终裁决我认为是甲", "no_verdict"),
        ("裁决：甲\n裁决：乙", "several_verdicts"),
        ("<think>裁决：甲", "no_verdict"),
    ],
)
def test_anything_else_is_no_verdict_with_its_reason(text: str, bad: str) -> None:
    assert read_verdict(Completion("x", text)) == (None, bad)


def test_a_reply_that_is_cut_or_refused_has_none_even_if_a_line_of_the_form_stands_there() -> None:
    assert read_verdict(Completion("x", "裁决：甲", "cut")) == (None, "cut")
    assert read_verdict(Completion("x", "", "refused")) == (None, "refused")
    assert read_verdict(None) == (None, "no_reply")

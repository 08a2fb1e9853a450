"""What is kept of a text, compared with Python's own normalisation of one character after another."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mengya.text.contamination.folding import fold, fold_strings

# Unassigned (Cn) differ between versions of Unicode; ours keeps all that will be ideographs.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="\\"), max_size=30)


def expected(text: str) -> str:
    forms = (unicodedata.normalize("NFKC", character).casefold() for character in text)
    return "".join(c for form in forms for c in form if unicodedata.category(c)[0] in "LMN")


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_every_text_and_line_is_that_of_its_characters(texts: list[str]) -> None:
    folded = fold(texts)
    places = folded.texts.tolist()
    assert [folded.string(a, b) for a, b in pairwise(places)] == [expected(text) for text in texts]
    lines = folded.lines.tolist()
    assert [folded.string(a, b) for a, b in pairwise(lines)] == [
        expected(line) for text in texts for line in text.split("\n")
    ]


def test_forms_of_the_same_text_are_equal() -> None:
    plain = "第III章：Ａ股 50m2，“好”吗？"
    other = [
        "第Ⅲ章:a股 ５０㎡　「好」 吗?",
        "第iii章…A股\n50M²——好\t吗",
        r"第III章：A股\n50m2\t好吗",
    ]
    assert fold_strings([plain, *other]) == ["第iii章a股50m2好吗"] * 4


def test_escaped_line_ends_are_lines_and_belong_to_their_text() -> None:
    folded = fold([r"甲\n乙", "丙"])
    assert folded.lines.tolist() == [0, 1, 2, 3] and folded.texts.tolist() == [0, 2, 3]
    assert fold_strings([]) == [] and fold_strings(["", "\\"]) == ["", ""]

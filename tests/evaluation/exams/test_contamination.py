"""An exam without its contaminated questions, and the words where nobody looked for them."""

from __future__ import annotations

from typing import Any

import pytest

from mengya.data.training_record import UNKNOWN, TrainedOn
from mengya.evaluation.exams.contamination import NO_CHECK, Answer, without_contaminated
from mengya.evaluation.score import Score

ANSWERS = [Answer("part", f"{i:016x}", i % 2 == 0) for i in range(8)]


def trained(keys: list[int], unchecked: list[int] = [], part: str = "part") -> TrainedOn:  # noqa: B006
    exam = {
        "parts": [{"name": "a", "digest": part}],
        "keys": [f"{i:016x}" for i in keys],
        "unchecked_keys": [f"{i:016x}" for i in unchecked],
    }
    return TrainedOn("pretrain", "text", {"exams": [exam]})


def test_questions_that_any_data_hold_are_left_out() -> None:
    both = without_contaminated([trained([0, 2]), trained([2, 3], [5])], ANSWERS)
    assert (both.checked, both.contaminated, both.too_short) == (8, 3, 1)
    assert both.clean == Score.of(2, 5)
    assert both.note == "3 of 8 questions are in the training data; 1 too short to look for"
    none = without_contaminated([trained([])], ANSWERS)
    assert none.clean == Score.of(4, 8) and none.note.startswith("0 of 8")
    assert without_contaminated([trained([*range(8)])], ANSWERS).clean is None


def test_a_part_that_was_not_looked_for_is_not_called_clean() -> None:
    answers = [*ANSWERS, Answer("other", "f" * 16, True)]
    some = without_contaminated([trained([0])], answers)
    assert some.checked == 8 and some.clean == Score.of(3, 7)
    assert "1 others were not looked for" in some.note


@pytest.mark.parametrize(
    ("record", "note"),
    [
        (None, NO_CHECK),
        ([], NO_CHECK),
        ([TrainedOn("pretrain", "text", None)], NO_CHECK),
        ([UNKNOWN, trained([0])], "for the data those of the start"),
        ([trained([0]), TrainedOn("sft", "chats", None)], "for the data chats"),
        ([trained([0], part="another")], "were not checked for this exam"),
    ],
)
def test_words_where_nothing_is_known(record: Any, note: str) -> None:
    known = without_contaminated(record, ANSWERS)
    assert known.checked == 0 and known.clean is None
    assert note in known.note and "give contamination.exams to prepare" in known.note


def test_what_was_found_is_said_though_other_data_were_not_checked() -> None:
    known = without_contaminated([trained([0, 2]), TrainedOn("sft", "me/train", None)], ANSWERS)
    assert known.checked == 0 and known.clean is None
    assert known.note.startswith("at least 2 of 8 questions are in the training data; no contam")
    assert "for the data me/train: give contamination.exams to prepare" in known.note

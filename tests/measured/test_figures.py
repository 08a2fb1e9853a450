"""Every part of an evaluation as Measurements."""

from __future__ import annotations

from typing import Any

import pytest

from mengya.errors import UserError
from mengya.measured.figures import figures_by_part, measurements_of
from mengya.measured.measurement import Measurement

CELL = {"length": 64, "depth": 0.5, "accuracy": 0.5, "interval": [0.1, 0.9], "samples": 10}
SCORE = {"accuracy": 0.3, "interval": [0.2, 0.4], "questions": 100}
LOOPS = Measurement("loops/greedy", 0.1, (0.05, 0.2), 40, "share", "lower")
EVALUATION: dict[str, Any] = {
    "text": {
        "bits_per_char": 3.5, "bits_per_byte": 1.2, "nats_per_token": 4.0, "documents": 9,
        "unknown_tokens": 2,
    },
    "by_position": {"width": 16, "nats": [4.0] * 8 + [2.0] * 8, "documents": 3},
    "preference": {"accuracy": 0.7, "interval": [0.6, 0.8], "pairs": 50},
    "passkey": [CELL, {**CELL, "length": 32, "accuracy": 1.0}],
    "exams": {
        "cmmlu": {
            "overall": SCORE, "chance": 0.25, "num_fewshot": 5,
            "contamination": {"contaminated": 3, "clean": SCORE, "note": "3 of 100 questions"},
        }
    },
    "yardsticks": {"loops": [LOOPS.to_json()]},
}  # fmt: skip


def test_every_part_becomes_measurements() -> None:
    found = {each.name: each for each in measurements_of(EVALUATION)}
    assert found["text/bits_per_char"].value == 3.5
    assert "unknown" in found["text/bits_per_char"].note
    assert found["by_position/0-64"].value == 4.0 and found["by_position/192-256"].value == 2.0
    assert found["preference"].above_chance
    assert found["passkey"].value == 0.75 and found["passkey"].items == 20
    assert found["passkey/32"].value == 1.0
    exam = found["exam/cmmlu"]
    assert exam.above_chance is False and exam.note == "5-shot; 3 of 100 questions"
    assert found["exam/cmmlu/not_contaminated"].interval == (0.2, 0.4)
    assert found["loops/greedy"] == LOOPS
    assert list(figures_by_part(EVALUATION)) == [
        "text", "by_position", "preference", "passkey", "exams/cmmlu", "yardsticks/loops",
    ]  # fmt: skip


def test_what_was_not_measured_has_no_figure() -> None:
    empty = {"text": None, "passkey": [], "exams": {}, "yardsticks": {}}
    assert measurements_of(empty) == [] == measurements_of({})


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("text", {"bits_per_char": "x"}),
        (
            "text",
            {name: float("nan") for name in ("bits_per_char", "bits_per_byte", "nats_per_token")}
            | {"documents": 1},
        ),
        ("exams", [1]),
        ("yardsticks", {"a": 3}),
        ("yardsticks", {"a": [{"name": "a", "value": "high"}]}),
    ],
)
def test_a_part_of_another_form_is_named(part: str, value: object) -> None:
    with pytest.raises(UserError, match=part):
        measurements_of({part: value})

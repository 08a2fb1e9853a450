"""The yardsticks by name."""

from __future__ import annotations

from collections.abc import Mapping

from mengya.evaluation.answers.diversity import diversity
from mengya.evaluation.answers.instructions.following import instructions
from mengya.evaluation.answers.lengths import answer_length, stop_in_time
from mengya.evaluation.answers.loops import loops
from mengya.evaluation.reference.reference_text import reference_text
from mengya.evaluation.yardstick import Yardstick

YARDSTICKS: Mapping[str, Yardstick] = {
    "answer_length": answer_length,
    "diversity": diversity,
    "instructions": instructions,
    "loops": loops,
    "reference_text": reference_text,
    "stop_in_time": stop_in_time,
}

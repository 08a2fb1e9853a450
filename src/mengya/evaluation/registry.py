"""The yardsticks by name."""

from __future__ import annotations

from collections.abc import Mapping

from mengya.evaluation.reference.reference_text import reference_text
from mengya.evaluation.yardstick import Yardstick

YARDSTICKS: Mapping[str, Yardstick] = {
    "reference_text": reference_text,
}

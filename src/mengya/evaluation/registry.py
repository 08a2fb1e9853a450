"""The yardsticks by name."""

from __future__ import annotations

from collections.abc import Mapping

from mengya.evaluation.knowledge.probe import knowledge
from mengya.evaluation.pairs.suite import cloze, pairs
from mengya.evaluation.yardstick import Yardstick

YARDSTICKS: Mapping[str, Yardstick] = {
    "cloze": cloze,
    "knowledge": knowledge,
    "pairs": pairs,
}

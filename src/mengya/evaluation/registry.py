"""The yardsticks by name."""

from __future__ import annotations

from collections.abc import Mapping

from mengya.evaluation.answers.diversity import diversity
from mengya.evaluation.answers.identity import identity
from mengya.evaluation.answers.instructions.following import instructions
from mengya.evaluation.answers.lengths import answer_length, stop_in_time
from mengya.evaluation.answers.loops import loops
from mengya.evaluation.knowledge.probe import knowledge
from mengya.evaluation.pairs.suite import cloze, pairs
from mengya.evaluation.reference.reference_text import reference_text
from mengya.evaluation.yardstick import Yardstick

YARDSTICKS: Mapping[str, Yardstick] = {
    "answer_length": answer_length,
    "cloze": cloze,
    "diversity": diversity,
    "identity": identity,
    "instructions": instructions,
    "knowledge": knowledge,
    "loops": loops,
    "pairs": pairs,
    "reference_text": reference_text,
    "stop_in_time": stop_in_time,
}


def yardstick_list() -> str:
    """One line a yardstick: its name, and what it measures."""
    lines = ["yardsticks=NAME or [NAME,NAME] measures on sets that ship with mengya:"]
    for name, yardstick in YARDSTICKS.items():
        lines.append(f"  {name:<15}{(yardstick.__doc__ or '').strip().splitlines()[0]}")
    return "\n".join(lines)

"""Which figures stand for all: those of the headline of a report card and of the model card."""

from __future__ import annotations

# Where a yardstick has no figure of its own name, or one of its parts matters as much.
_PARTS = {
    "text/bits_per_char", "loops/greedy", "loops/sampled", "stop_in_time/greedy", "answer_length/greedy",
    "diversity/distinct_2", "identity/consistency", "identity/known_assistant",
}  # fmt: skip


def is_headline(name: str) -> bool:
    """Whether it is one, by the name of the measurement."""
    first, *parts = name.split("/")
    if first == "exam":
        return len(parts) == 1
    if first == "judge":
        return parts[:1] == ["win_rate"] and len(parts) == 2  # of all categories
    return not parts or name in _PARTS

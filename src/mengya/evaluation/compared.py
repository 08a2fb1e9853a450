"""Two models on the same items: the p of the difference of every figure that has items.

Takes Measurements and items as `mengya evaluate` writes them (evaluation_items/NAME.jsonl).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mengya.measured.intervals import paired_difference

Items = Mapping[str, Sequence[Mapping[str, Any]]]
"""Items by the yardstick that they are of; of an exam by exam/NAME."""


def paired_p(name: str, first: Items, second: Items, seed: int = 0) -> float | None:
    """Two-sided p that both models are equal in the figure `name`, by their items.

    None where one of them has no items of it, or has others: with another `limit` they cannot be paired.
    Documents count by their bits, so that long ones weigh more, as in the figure.
    """
    scores = [_scores(name, items) for items in (first, second)]
    if not scores[0] or scores[0].keys() != scores[1].keys():
        return None
    order = list(scores[0])
    return paired_difference(*([one[key] for key in order] for one in scores), seed=seed).p


def yardstick_of(name: str) -> tuple[str, str]:
    """A name as (what its items are of, its part): ("pairs", "aspect"), ("exam/cmmlu", "")."""
    first, _, rest = name.partition("/")
    if first != "exam":
        return first, rest
    exam, _, part = rest.partition("/")
    return f"exam/{exam}", part


def _scores(name: str, items: Items) -> dict[tuple[str, str], float]:
    """Of the items that a figure is a mean of, by part and id."""
    yardstick, part = yardstick_of(name)
    return {
        (str(item.get("part")), str(item.get("id"))): float(item["score"])
        for item in items.get(yardstick, ())
        if isinstance(item.get("score"), int | float)
        and (item.get("part") == part if part else not item.get("apart"))
    }

"""Scores of written answers, for the benchmarks of definitions.py: one text against the reference of its row.

Each function has the harness's form of process_results: (row, [text]) -> metric -> value.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import Any

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")


def cmath_score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the last number of the text is the result."""
    numbers = _NUMBER.findall(unicodedata.normalize("NFKC", results[0]))
    right = bool(numbers) and _value(numbers[-1]) == _value(doc["golden"])
    return {"exact_match": float(right)}


def _value(number: str) -> Decimal | None:
    top, _, bottom = number.strip().replace(",", "").partition("/")
    try:
        return Decimal(top) / Decimal(bottom or 1)
    except (InvalidOperation, ZeroDivisionError):
        return None


def cmrc_score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Exact match and F1 as CMRC 2018 has them (Cui et al. 2019, arXiv:1810.07366): without punctuation,
    F1 over the longest common run of characters (of words in Latin letters); the best of the references."""
    given = _segments(results[0])
    exact = f1 = 0.0
    for answer in doc["answers"]:
        wanted = _segments(answer)
        exact = max(exact, float(given == wanted))
        common = _longest_common_run(wanted, given)
        if common:
            precision, recall = common / len(given), common / len(wanted)
            f1 = max(f1, 2 * precision * recall / (precision + recall))
    return {"exact_match": exact, "f1": f1}


def _segments(text: str) -> list[str]:
    """Latin words and numbers as one, every other letter by itself; punctuation and spaces are left out."""
    kept = (c if unicodedata.category(c)[0] in "LNM" else " " for c in text.lower())
    return re.findall(r"[a-z0-9]+|\S", "".join(kept))


def _longest_common_run(first: list[str], second: list[str]) -> int:
    best, ends = 0, [0] * (len(second) + 1)
    for one in first:
        previous = 0
        for place, other in enumerate(second, 1):
            previous, ends[place] = ends[place], previous + 1 if one == other else 0
            best = max(best, ends[place])
    return best

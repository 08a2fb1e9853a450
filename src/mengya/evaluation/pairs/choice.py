"""Items in which one sentence is right, and how a model's likelihoods answer them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mengya.errors import UserError
from mengya.evaluation.likelihood.held_out import document_ids
from mengya.evaluation.likelihood.scoring import sequence_nlls
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickResult
from mengya.measured.measurement import Measurement


@dataclass(frozen=True)
class Choice:
    """One right sentence, and wrong ones that differ from it in one place."""

    part: str
    id: str
    good: str
    bad: tuple[str, ...]

    @property
    def chance(self) -> float:
        return 1 / (1 + len(self.bad))

    @property
    def equal_length(self) -> bool:
        """Whether all its sentences have the same number of characters."""
        return all(len(bad) == len(self.good) for bad in self.bad)


def likeliest(
    yardstick: str, subject: Subject, choices: Sequence[Choice], limit: int | None
) -> YardstickResult:
    """How often the right sentence is the likeliest: overall and by part, next to chance.

    A sentence counts with the sum of the log-probabilities of its tokens, between document tokens as in
    training (a chat model is not asked: it too continues text). Sentences share what stands around the
    word in question, so this is also the likelihood of that word with what follows, given what stands
    before, however the tokenizer cuts them. A tie counts as wrong.

    Args:
        limit: only so many items a part, from mirror groups spread evenly over it.

    Raises:
        UserError: a sentence is longer than the model's context.
    """
    asked = spread(choices, limit)
    sentences = list(dict.fromkeys(s for choice in asked for s in (choice.good, *choice.bad)))
    scores = dict(zip(sentences, log_probabilities(subject, sentences), strict=True))
    records: list[dict[str, Any]] = []
    for choice in asked:
        margin = scores[choice.good] - max(scores[bad] for bad in choice.bad)
        record = {"part": choice.part, "id": choice.id, "score": int(margin > 0)}
        bad = choice.bad[0] if len(choice.bad) == 1 else list(choice.bad)
        records.append({**record, "margin": round(margin, 4), "good": choice.good, "bad": bad})
    return YardstickResult(_measurements(yardstick, asked, records), records)


def log_probabilities(subject: Subject, sentences: Sequence[str]) -> list[float]:
    """log p of each sentence between document tokens, in nats.

    Raises:
        UserError: a sentence is longer than the model's context.
    """
    ids = list(document_ids(subject.tokenizer, sentences))
    longest = max(map(len, ids))
    if longest > subject.context_length + 1:
        raise UserError(
            f"{subject.folder}: a sentence of this yardstick has {longest} tokens and the model's context "
            f"is {subject.context_length}; leave the yardstick out, or give the model a longer context"
        )
    nlls = sequence_nlls(subject.model, ids, subject.on_progress)
    return [-nll.double().sum().item() for nll in nlls]


def spread(choices: Sequence[Choice], limit: int | None) -> list[Choice]:
    """At most `limit` items of every part, in groups that mirror each other, spread evenly; None: all."""
    if limit is None:
        return list(choices)
    kept = []
    for part in dict.fromkeys(choice.part for choice in choices):
        items = [choice for choice in choices if choice.part == part]
        size = 1 + len(items[0].bad)
        groups = math.ceil(len(items) / size)
        wanted = min(groups, math.ceil(limit / size))
        starts = [size * (turn * groups // wanted) for turn in range(wanted)]
        kept += [item for start in starts for item in items[start : start + size]][:limit]
    return kept


def _measurements(
    yardstick: str, choices: Sequence[Choice], records: Sequence[dict[str, Any]]
) -> list[Measurement]:
    """The share of right items overall, then by part in the suite's order."""
    parts = {yardstick: [record["score"] for record in records]}
    for record in records:
        parts.setdefault(f"{yardstick}/{record['part']}", []).append(record["score"])
    measurements = []
    for name, right in parts.items():
        chance = choices[0].chance
        measurements.append(Measurement.share(name, sum(right), len(right), chance=chance))
    return measurements

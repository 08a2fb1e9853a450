"""The verdicts on one pair -> who won it, and whether the judge agreed with itself.

A round is both orders. Its winner is who wins in both; anything else is a tie. A round in which a reply has
no verdict does not count, and a pair without a round that counts is not decided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mengya.endpoint.messages import Completion, Prompt
from mengya.evaluation.judge.asking import Asked, Pair
from mengya.evaluation.judge.verdict import Bad, Verdict, read_verdict

_OTHER: dict[Verdict, Verdict] = {"first": "second", "second": "first", "tie": "tie"}
_SCORE: dict[Verdict, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True)
class Ruling:
    """One reply.

    Attributes:
        shown: the verdict on the answers in the order in which they were shown.
        verdict: the same, on the sides.
        bad: why there is none.
    """

    round: int
    swapped: bool
    shown: Verdict | None
    bad: Bad | None
    text: str

    @property
    def verdict(self) -> Verdict | None:
        return _OTHER[self.shown] if self.shown and self.swapped else self.shown


@dataclass(frozen=True)
class Outcome:
    """What the judge says of a pair."""

    pair: Pair
    rulings: list[Ruling]

    @property
    def rounds(self) -> list[tuple[Verdict, Verdict]]:
        """The verdicts on the sides, as given and swapped, of every round that has both."""
        by_round: dict[int, list[Verdict]] = {}
        for ruling in self.rulings:
            if ruling.verdict is not None:
                by_round.setdefault(ruling.round, []).append(ruling.verdict)
        return [(pair[0], pair[1]) for pair in by_round.values() if len(pair) == 2]

    @property
    def score(self) -> float | None:
        """1: the first side wins, 0: the second, 0.5: a tie; the mean over rounds. None: not decided."""
        if self.pair.is_identical:
            return 0.5
        scores = [_SCORE[one if one == other else "tie"] for one, other in self.rounds]
        return sum(scores) / len(scores) if scores else None

    @property
    def agrees(self) -> bool | None:
        """Whether the two orders have the same verdict in every round; None: nothing to compare."""
        return all(one == other for one, other in self.rounds) if self.rounds else None

    @property
    def repeats(self) -> bool | None:
        """Whether every order has the same verdict in all rounds; None with fewer than two rounds."""
        return len(set(self.rounds)) == 1 if len(self.rounds) > 1 else None

    def record(self) -> dict[str, Any]:
        """For reading and for paired comparisons: `score` is the first side's."""
        question = self.pair.question
        replies = [
            {
                "round": ruling.round,
                "shown_first": "second" if ruling.swapped else "first",
                "verdict": ruling.verdict,
                **({"bad": ruling.bad} if ruling.bad else {}),
                "text": ruling.text,
            }
            for ruling in self.rulings
        ]
        return {
            "part": question.category or "win_rate",
            "id": question.id,
            "score": self.score,
            "agrees": self.agrees,
            "question": question.prompt,
            **({"reference": question.reference} if question.reference else {}),
            "first": self.pair.first,
            "second": self.pair.second,
            "replies": replies,
        }


def outcome(
    pair: Pair, asked: Sequence[Asked], reply: Callable[[Prompt], Completion | None]
) -> Outcome:
    """The outcome of a pair from the replies to its requests; `reply` gives None where none came."""
    rulings = []
    for request in asked:
        completion = reply(request.prompt)
        shown, bad = read_verdict(completion)
        text = "" if completion is None else completion.text or completion.detail
        rulings.append(Ruling(request.round, request.swapped, shown, bad, text))
    return Outcome(pair, rulings)

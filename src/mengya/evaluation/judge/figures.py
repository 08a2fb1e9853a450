"""Outcomes -> figures: win rate, agreement of the judge with itself, and what it may be biased by.

Takes all pairs; gives measurements with 95 % intervals, where the question is the unit: rounds and orders of
one question are not independent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mengya.evaluation.judge.outcome import Outcome
from mengya.measured.intervals import bootstrap_share, paired_difference
from mengya.measured.measurement import Better, Measurement


@dataclass(frozen=True)
class Judgement:
    """All that a judge said of two sides.

    Attributes:
        wins, losses: pairs that the first side won or lost in every round that counts; ties: the others.
        inconsistent: of the ties, those on which the two orders contradict one another.
        identical: of the ties, those whose answers are equal and that were not judged.
        undecided: pairs without a verdict; bad: replies without one, by reason.
        p: of no difference between the sides, by flipping signs; None without a decided pair.
    """

    questions: int
    wins: int
    losses: int
    ties: int
    inconsistent: int
    identical: int
    undecided: int
    bad: dict[str, int]
    p: float | None
    measurements: list[Measurement] = field(default_factory=list)


def judgement(outcomes: Sequence[Outcome], first: str, second: str) -> Judgement:
    """The figures of all pairs; `first` and `second` name the sides."""
    scores = [outcome.score for outcome in outcomes]
    decided = [score for score in scores if score is not None]
    bad = Counter(ruling.bad for outcome in outcomes for ruling in outcome.rulings if ruling.bad)
    measured: list[Measurement] = []
    if decided:
        measured += _win_rates(outcomes, f"of {first} against {second}")
        measured += _of_the_judge(outcomes)
    return Judgement(
        questions=len(outcomes),
        wins=sum(score == 1 for score in decided),
        losses=sum(score == 0 for score in decided),
        ties=sum(0 < score < 1 for score in decided),
        inconsistent=sum(outcome.agrees is False for outcome in outcomes),
        identical=sum(outcome.pair.is_identical for outcome in outcomes),
        undecided=scores.count(None),
        bad=dict(sorted(bad.items())),
        p=paired_difference([1 - s for s in decided], decided).p if decided else None,
        measurements=measured,
    )


def _win_rates(outcomes: Sequence[Outcome], note: str) -> list[Measurement]:
    """Of the first side, ties as half a win: over all, and by category where there are several."""
    by_category: dict[str, list[float]] = {}
    for outcome in outcomes:
        if outcome.score is not None:
            by_category.setdefault(outcome.pair.question.category, []).append(outcome.score)
    scores = [score for one in by_category.values() for score in one]
    rates = [_mean("judge/win_rate", scores, chance=0.5, note=note)]
    if len(by_category) > 1:
        rates += [
            _mean(f"judge/win_rate/{category or 'other'}", of, chance=0.5)
            for category, of in sorted(by_category.items())
        ]
    return rates


def _of_the_judge(outcomes: Sequence[Outcome]) -> list[Measurement]:
    figures = [
        _share("judge/agreement", (outcome.agrees for outcome in outcomes), "same verdict in both orders"),
        _share("judge/repeats", (outcome.repeats for outcome in outcomes), "same verdict in every round"),
    ]  # fmt: skip
    shown_first = [
        wins.count("first") / len(wins)
        for outcome in outcomes
        if (wins := [r.shown for r in outcome.rulings if r.shown in ("first", "second")])
    ]
    if shown_first:
        note = "verdicts for the answer that was shown first; 50 % without position bias"
        figures.append(_mean("judge/shown_first_wins", shown_first, better="neither", note=note))
    note = "wins of the longer answer"
    figures.append(_share("judge/longer_wins", map(_longer_won, outcomes), note, better="neither"))
    return [figure for figure in figures if figure is not None]


def _longer_won(outcome: Outcome) -> bool | None:
    """None where nobody won, or the answers are equally long."""
    first, second = len(outcome.pair.first), len(outcome.pair.second)
    if outcome.score not in (0.0, 1.0) or first == second:
        return None
    return (first > second) == (outcome.score == 1.0)


def _mean(
    name: str,
    values: Sequence[float],
    chance: float | None = None,
    note: str = "",
    better: Better = "higher",
) -> Measurement:
    mean, interval = sum(values) / len(values), bootstrap_share(values)
    return Measurement(name, mean, interval, len(values), "share", better, chance, note)


def _share(
    name: str, values: Iterable[bool | None], note: str, better: Better = "higher"
) -> Measurement | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Measurement.share(name, sum(known), len(known), better, note=note)

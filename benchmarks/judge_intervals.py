"""Whether the figures of `mengya judge` hold what they say, on simulated judges whose truth is known.

A judge sees which answer is better with some probability, takes the first shown with another, and draws lots
else; the true win rate follows. Shown are, over many comparisons: how often the 95 % interval holds the true
win rate, and how often p is below 0.05 (where the sides are equal: false alarms; else: the power).

usage: python benchmarks/judge_intervals.py [--comparisons 400] [--questions 24 100 400]
"""

from __future__ import annotations

import argparse
import random
from typing import NamedTuple

from mengya.endpoint.messages import Completion, Prompt
from mengya.evaluation.judge.asking import Pair, load_prompt, requests
from mengya.evaluation.judge.figures import judgement
from mengya.evaluation.judge.outcome import outcome
from mengya.evaluation.judge.questions import Question


class Judge(NamedTuple):
    """
    Attributes:
        better: share of questions on which the first side's answer is better.
        sees, biased: probability that a verdict is for the better answer, or for the one that is shown first.
    """

    name: str
    better: float
    sees: float
    biased: float

    @property
    def win_rate(self) -> float:
        """A question counts for a side where both orders agree on it, else as a tie."""
        lots = 1 - self.sees - self.biased
        # The better side is shown first in one order and second in the other.
        right = (self.sees + self.biased + lots / 2) * (self.sees + lots / 2)
        wrong = (lots / 2) * (self.biased + lots / 2)
        better = right + (1 - right - wrong) / 2
        return self.better * better + (1 - self.better) * (1 - better)


JUDGES = [
    Judge("sides equal, judge sees well", 0.5, 0.9, 0.0),
    Judge("sides equal, judge biased to the first", 0.5, 0.3, 0.6),
    Judge("first better on 60 %, sees well", 0.6, 0.9, 0.0),
    Judge("first better on 75 %, sees well", 0.75, 0.9, 0.0),
    Judge("first better on 75 %, biased to the first", 0.75, 0.3, 0.6),
]
TEMPLATE = load_prompt(None)


def compare(judge: Judge, questions: int, rng: random.Random) -> tuple[float, float, float]:
    """Win rate's interval and p of one comparison."""
    outcomes = []
    for number in range(questions):
        pair = Pair(Question(str(number), "问"), "一", "二")
        first_is_better = rng.random() < judge.better
        asked = list(requests(pair, TEMPLATE, 1, 1000))
        verdicts: dict[str, str] = {}
        for request in asked:
            better = "甲" if first_is_better != request.swapped else "乙"
            kind = rng.random()
            lots = rng.choice("甲乙")
            verdict = (
                better if kind < judge.sees else "甲" if kind < judge.sees + judge.biased else lots
            )
            verdicts[request.prompt.id] = f"裁决：{verdict}"

        def reply(prompt: Prompt, verdicts: dict[str, str] = verdicts) -> Completion:
            return Completion(prompt.id, verdicts[prompt.id])

        outcomes.append(outcome(pair, asked, reply))
    found = judgement(outcomes, "first", "second")
    interval = found.measurements[0].interval
    assert interval is not None and found.p is not None
    return *interval, found.p


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparisons", type=int, default=400)
    parser.add_argument("--questions", type=int, nargs="+", default=[24, 100, 400])
    arguments = parser.parse_args()
    print("| judge | questions | true win rate | interval holds it | p < 0.05 |")
    print("|---|---:|---:|---:|---:|")
    for judge in JUDGES:
        for questions in arguments.questions:
            rng = random.Random(questions)
            runs = [compare(judge, questions, rng) for _ in range(arguments.comparisons)]
            holds = sum(low <= judge.win_rate <= high for low, high, _ in runs) / len(runs)
            sure = sum(p < 0.05 for _, _, p in runs) / len(runs)
            print(
                f"| {judge.name} | {questions} | {judge.win_rate:.1%} | {holds:.1%} | {sure:.1%} |"
            )


if __name__ == "__main__":
    main()

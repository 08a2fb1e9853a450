"""Judges whose nature is known give the figures that they must."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mengya.endpoint.messages import Completion, Prompt
from mengya.evaluation.judge.asking import Asked, Pair, load_prompt, requests
from mengya.evaluation.judge.figures import Judgement, judgement
from mengya.evaluation.judge.outcome import Outcome, outcome
from mengya.evaluation.judge.questions import Question

TEMPLATE = load_prompt(None)
Judge = Callable[[Pair, Asked], str]


def judged(judge: Judge, pairs: list[Pair], rounds: int = 1) -> tuple[list[Outcome], Judgement]:
    outcomes = []
    for pair in pairs:
        asked = list(requests(pair, TEMPLATE, rounds, 1000))
        texts = {request.prompt.id: judge(pair, request) for request in asked}

        def reply(prompt: Prompt, texts: dict[str, str] = texts) -> Completion:
            return Completion(prompt.id, texts[prompt.id])

        outcomes.append(outcome(pair, asked, reply))
    return outcomes, judgement(outcomes, "一", "二")


def pairs(count: int, first_better: int, categories: int = 1) -> list[Pair]:
    """Answers that say how good they are; the first side is better on the first so many."""
    return [
        Pair(
            Question(str(i), f"第{i}问", category=f"c{i % categories}" if categories > 1 else ""),
            f"好{i}" if i < first_better else f"差差差{i}",
            f"差差差{i}" if i < first_better else f"好{i}",
        )
        for i in range(count)
    ]


def honest(pair: Pair, asked: Asked) -> str:
    shown = pair.second if asked.swapped else pair.first
    return "理由。\n裁决：" + ("甲" if shown.startswith("好") else "乙")


def value(found: Judgement, name: str) -> float:
    return next(m.value for m in found.measurements if m.name == f"judge/{name}")


def interval(found: Judgement, name: str) -> tuple[float, float]:
    found_interval = next(m.interval for m in found.measurements if m.name == f"judge/{name}")
    assert found_interval is not None
    return found_interval


def test_an_honest_judge_is_believed() -> None:
    _, found = judged(honest, pairs(40, 30))
    assert (found.wins, found.losses, found.ties, found.inconsistent) == (30, 10, 0, 0)
    assert value(found, "win_rate") == 0.75 and value(found, "agreement") == 1
    low, high = interval(found, "win_rate")
    assert 0.5 < low < 0.75 < high < 0.95 and found.p is not None and found.p < 0.01
    assert value(found, "shown_first_wins") == 0.5 and value(found, "longer_wins") == 0
    assert interval(found, "agreement")[0] < 1  # 40 questions do not prove that it never errs


def test_a_judge_that_takes_the_first_shown_says_nothing_of_the_sides_and_is_found_out() -> None:
    outcomes, found = judged(lambda pair, asked: "裁决：甲", pairs(20, 15))
    assert (found.wins, found.losses, found.ties, found.inconsistent) == (0, 0, 20, 20)
    assert value(found, "win_rate") == 0.5 and value(found, "agreement") == 0
    assert value(found, "shown_first_wins") == 1 and found.p == 1
    assert all(o.score == 0.5 and o.agrees is False for o in outcomes)


def test_a_judge_that_draws_lots_shows_no_difference() -> None:
    rng = random.Random(1)
    _, found = judged(lambda pair, asked: f"裁决：{rng.choice('甲乙平')}", pairs(200, 200))
    low, high = interval(found, "win_rate")
    assert low < 0.5 < high and found.p is not None and found.p > 0.05
    assert 0.2 < value(found, "agreement") < 0.5  # a third by chance


def test_replies_without_a_verdict_count_for_neither_side() -> None:
    def sometimes(pair: Pair, asked: Asked) -> str:
        number = int(pair.question.id)
        if number < 5:
            return "我不知道。"
        if number < 8 and asked.swapped:
            return "裁决：甲\n裁决：乙"
        return honest(pair, asked)

    outcomes, found = judged(sometimes, pairs(20, 20))
    assert found.undecided == 8 and found.bad == {"no_verdict": 10, "several_verdicts": 3}
    assert found.wins == 12 and value(found, "win_rate") == 1
    assert interval(found, "win_rate")[0] < 0.8  # 12 of 12 is not certainty
    record = outcomes[0].record()
    assert record["score"] is None and record["replies"][0]["bad"] == "no_verdict"
    assert outcomes[6].rulings[0].verdict == "first" and outcomes[6].score is None
    _, nothing = judged(lambda pair, asked: "", pairs(3, 3))
    assert nothing.p is None and nothing.measurements == [] and nothing.undecided == 3


def test_rounds_show_whether_the_judge_repeats_itself() -> None:
    def moody(pair: Pair, asked: Asked) -> str:
        even = int(pair.question.id) % 2 == 0
        return honest(pair, asked) if even or asked.round == 1 else "裁决：平"

    outcomes, found = judged(moody, pairs(10, 10), rounds=2)
    assert value(found, "repeats") == 0.5 and value(found, "agreement") == 1
    assert [o.score for o in outcomes[:2]] == [1.0, 0.75]
    assert (found.wins, found.ties) == (5, 5)


def test_categories_have_their_own_rate_and_identical_answers_are_ties() -> None:
    asked = pairs(20, 10, categories=2)
    same = Pair(Question("same", "问", category="c0"), "一样", "一样 ")
    outcomes, found = judged(honest, [*asked, same])
    names = [m.name for m in found.measurements]
    assert names[:3] == ["judge/win_rate", "judge/win_rate/c0", "judge/win_rate/c1"]
    assert found.identical == 1 and found.questions == 21 and outcomes[-1].score == 0.5
    assert next(m.items for m in found.measurements if m.name == "judge/win_rate/c0") == 11
    assert next(m.items for m in found.measurements if m.name == "judge/agreement") == 20
    assert value(found, "win_rate/c1") == pytest.approx(0.5)

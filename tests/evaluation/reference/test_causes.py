"""Why a run may lag: what its settings and metrics speak for comes first, and every cause has a check."""

from __future__ import annotations

from typing import Any

import pytest

from mengya.evaluation.reference.causes import usual_causes

SETTINGS: dict[str, Any] = {
    "data": {"train": [{"path": "shards/train"}], "sequence_length": 100},
    "tokenizer": "tok", "global_batch_size": 10, "optimizer": {"max_grad_norm": 1.0},
}  # fmt: skip
SOUND = [
    {"step": s, "tokens": 990 * s, "lr_factor": (100 - s) / 100, "grad_norm": 0.5, "skipped": 0,
     "validation/nll": 9 - s / 20}
    for s in range(10, 101, 10)
]  # fmt: skip


def seen(metrics: list[dict[str, Any]], active: int = 1000, **settings: Any) -> dict[str, str]:
    causes = usual_causes({**SETTINGS, **settings}, metrics, active, "runs/x")
    return {cause.name: cause.seen for cause in causes if cause.seen}


def test_nothing_speaks_against_a_sound_run_and_all_causes_are_named() -> None:
    assert seen(SOUND) == {}
    causes = usual_causes(SETTINGS, SOUND, 1000, "runs/x")
    names = [cause.name for cause in causes]
    for name in (
        "learning rate",
        "pads",
        "wrong labels",
        "tokenizer",
        "duplicates",
        "too few steps",
    ):
        assert name in names
    commands = " ".join(cause.check for cause in causes)
    assert "mengya inspect shards/train tokenizer=tok" in commands
    assert "mengya plan runs/x/config.yaml" in commands and "texts=FILE" in commands


@pytest.mark.parametrize(
    ("cause", "change", "says"),
    [
        ("learning rate", {"lr_factor": 1.0}, "100% of its peak"),
        ("learning rate", {"grad_norm": 3.0}, "above 1 in 100%"),
        ("pads", {"tokens": 40_000}, "40% of the positions"),
        ("duplicates", {"validation/nll": 9.5}, "to 9.500"),
        ("unstable steps", {"skipped": 5}, "5.0% of the steps"),
    ],
)
def test_a_planted_cause_comes_first(cause: str, change: dict[str, float], says: str) -> None:
    metrics = [*SOUND[:4], *({**line, **change} for line in SOUND[4:])]
    causes = usual_causes(SETTINGS, metrics, 1000, "runs/x")
    assert causes[0].name == cause
    assert says in causes[0].seen


def test_few_tokens_for_the_size_are_said() -> None:
    assert "9.9 tokens for each parameter" in seen(SOUND, active=10_000)["too few steps"]


def test_a_run_of_which_little_is_known_has_all_causes_too() -> None:
    causes = usual_causes({}, [], 1000, "runs/x")
    assert len(causes) == 8 and not any(cause.seen for cause in causes)

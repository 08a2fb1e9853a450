"""Weights, temperature, caps and phases as rows of each source; what cannot be is refused with a remedy."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mengya.config import load_config
from mengya.data.rows.batch_size import BatchRamp, BatchSize
from mengya.data.rows.mixing.config import MixtureConfig
from mengya.data.rows.mixing.plan import MixturePlan, RunLength, plan_mixture
from mengya.errors import UserError

LENGTHS = [1000, 100]
STEPS = RunLength(400, BatchSize(10), decay=300)  # 4,000 rows


def config(*sources: dict[str, Any], **more: Any) -> MixtureConfig:
    named = [
        {"path": f"shards/{name}/train", **source}
        for name, source in zip("abcd", sources, strict=False)
    ]
    return MixtureConfig.model_validate({"train": named, **more})


def plan(*sources: dict[str, Any], length: RunLength = STEPS, **more: Any) -> MixturePlan:
    return plan_mixture(config(*sources, **more), LENGTHS, length)


def counts(found: MixturePlan) -> list[tuple[int, ...]]:
    return [segment.counts for segment in found.segments]


def test_settings_of_earlier_versions_need_no_segments() -> None:
    for sources in (({}, {}), ({"weight": 3}, {"weight": 1})):
        found = plan(*sources)
        assert found.segments == ()
        assert found.weights == tuple(source.get("weight") for source in sources)


def test_temperature_makes_weights_of_rows() -> None:
    assert plan({}, {}, temperature=1).weights == (1, 0.1)
    assert plan({}, {}, temperature=2).weights == (1, pytest.approx(0.1**0.5, abs=1e-6))
    even = plan({}, {}, temperature=1e6).weights
    assert even == pytest.approx((1, 1), abs=1e-4)
    phase = plan({}, {}, phases=[{"until": 0.5}, {"temperature": 2}])
    assert counts(phase) == [(909_091, 90_909), (759_747, 240_253)]  # shares, of a million


def test_a_cap_that_does_not_bind_changes_nothing() -> None:
    for cap in ({"max_epochs": 10}, {"max_epochs": 10.5}):
        assert plan({"weight": 3}, {"weight": 1, **cap}).segments == ()
    assert plan({"max_epochs": 4}, {"max_epochs": 4}).segments == ()  # 3.6 epochs of a pool


def test_a_cap_gives_its_share_to_the_others_in_proportion() -> None:
    assert counts(plan({"weight": 3}, {"weight": 1, "max_epochs": 4})) == [(3600, 400)]
    found = plan_mixture(
        config({"weight": 2}, {"weight": 1}, {"weight": 1, "max_epochs": 0.5}),
        [1000, 1000, 100],
        STEPS,
    )
    assert counts(found) == [(2633, 1317, 50)]
    # the second is full as soon as it has the third's share
    both = plan_mixture(
        config({"weight": 1}, {"weight": 4, "max_epochs": 3}, {"weight": 5, "max_epochs": 1}),
        [1000, 1000, 100], STEPS,
    )  # fmt: skip
    assert counts(both) == [(900, 3000, 100)]


def test_the_last_phase_takes_first_of_what_a_cap_leaves() -> None:
    phases = [
        {"until": "decay", "weights": {"a": 0.9, "b": 0.1}},
        {"weights": {"a": 0.7, "b": 0.3}},
    ]
    free = plan({}, {}, phases=phases)
    assert counts(free) == [(900_000, 100_000), (700_000, 300_000)]
    assert plan({}, {"max_epochs": 7}, phases=phases).segments == free.segments
    capped = plan({}, {"max_epochs": 4}, phases=phases)
    assert counts(capped) == [(2900, 100), (700, 300)]


def test_phases_begin_at_their_step() -> None:
    until = [0.25, 200, "decay", None]
    found = plan({}, {}, phases=[{"until": u, "temperature": 1 + i} for i, u in enumerate(until)])
    assert [phase.start for phase in found.phases] == [0, 100, 200, 300]
    assert [segment.start for segment in found.segments] == [0, 1000, 2000, 3000]
    ramp = RunLength(400, BatchSize(8, BatchRamp(start=2, steps=50)), decay=300)
    grown = plan({}, {}, length=ramp, phases=[{"until": 0.25}, {"temperature": 5}])
    assert [segment.start for segment in grown.segments] == [0, 50 * 2 + 50 * 4]


def test_a_phase_that_never_comes_is_left_out() -> None:
    found = plan({}, {}, phases=[{"until": 5000}, {"temperature": 5}])
    assert [(phase.start, phase.end) for phase in found.phases] == [(0, 400), (400, 400)]
    assert len(found.segments) == 1


def test_an_order_without_weights_has_each_row_once_an_epoch() -> None:
    found = plan({"order": "short_first"}, {})
    assert counts(found) == [(1000, 100)]
    shorter = plan({"order": "short_first"}, {}, length=RunLength(9, BatchSize(10)))
    assert found.segments == shorter.segments
    assert plan({"order": "short_first", "weight": 1}, {"weight": 1}).segments == ()


def test_caps_may_be_exceeded_by_the_rest_of_the_last_step() -> None:
    length = RunLength(5, BatchSize(700))
    with pytest.raises(UserError, match="takes 3,500 rows of a, b, and max_epochs leaves 2,200"):
        plan({"max_epochs": 2}, {"max_epochs": 2}, length=length)
    length = RunLength(5, BatchSize(500))  # 2,500: 300 rows more than two epochs, less than a step
    found = plan({"max_epochs": 2}, {"max_epochs": 2}, length=length)
    assert counts(found) == [(2273, 227)]


REFUSED: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "all capped": (
        [{"weight": 1, "max_epochs": 1}, {"weight": 1, "max_epochs": 2.5}], {},
        "the run takes 4,000 rows of a, b, and max_epochs leaves 1,250",
    ),
    "alone in a phase": (
        [{}, {"max_epochs": 4}], {"phases": [{"until": 0.5}, {"weights": {"b": 1}}]},
        r"data.phases\[1\] \(steps 201 to 400\) takes 2,000 rows of b, and max_epochs leaves 400;",
    ),
    "taken by later phases": (
        [{"max_epochs": 2}, {}],
        {"phases": [{"until": 0.5, "weights": {"a": 1}}, {"weights": {"a": 1, "b": 1}}]},
        "leaves 1,000, later phases having theirs; write",
    ),
    "ends in a wrong order": (
        [{}, {}],
        {"phases": [{"until": 0.9}, {"until": "decay", "temperature": 2}, {"temperature": 3}]},
        r"data.phases\[1\].until 'decay' is step 300 of 400, before step 360, where data.phases\[0\] ends",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_what_is_accepted(case: str) -> None:
    sources, more, message = REFUSED[case]
    asked = config(*sources, **more)
    with pytest.raises(UserError, match=message) as caught:
        plan_mixture(asked, LENGTHS, STEPS)
    typed = re.findall(r"data\.([\w.\[\]]+=[\d.]+)\b", str(caught.value))
    assert typed
    fixed = load_config(
        MixtureConfig, None, {**asked.model_dump(mode="json"), **dict(t.split("=") for t in typed)}
    )
    assert plan_mixture(fixed, LENGTHS, STEPS).segments


def test_another_length_is_the_same_until_a_phase_that_it_moves() -> None:
    def both(row: int, sources: list[dict[str, Any]], **more: Any) -> bool:
        short = plan(*sources, **more)
        longer = plan(*sources, length=RunLength(800, BatchSize(10), decay=600), **more)
        return short.same_until(longer, row) and longer.same_until(short, row)

    two: list[dict[str, Any]] = [{}, {}]
    assert both(4000, two, phases=[{"until": 300}, {"temperature": 5}])
    for until, start in ((0.5, 2000), ("decay", 3000)):
        phases = [{"until": until}, {"temperature": 5}]
        assert both(start, two, phases=phases) and not both(start + 10, two, phases=phases)
    weighted = [{"weight": 3}, {"weight": 1, "max_epochs": 20}]
    assert both(4000, weighted)
    weighted[1]["max_epochs"] = 10  # binds in the longer run
    assert both(0, weighted) and not both(10, weighted)

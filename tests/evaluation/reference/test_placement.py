"""Where a run stands: references of a known law, so that every answer is known."""

from __future__ import annotations

import math

import pytest

from mengya.evaluation.reference.curves import ReferenceRun
from mengya.evaluation.reference.placement import RunCurve, place


def law(parameters: float, tokens: float) -> float:
    """Straight on logarithmic axes, as the interpolation is."""
    return 30 * parameters**-0.05 * tokens**-0.06


def reference(parameters: int, last: float = 1e9, experts: int = 1) -> ReferenceRun:
    tokens = tuple(round(1e6 * (last / 1e6) ** (i / 4)) for i in range(5))
    bits = tuple(law(parameters, t) for t in tokens)
    name = f"r{parameters / 1e6:g}m"
    return ReferenceRun(name, parameters * experts, parameters, 6400, "d", "o", "c", tokens, bits)


REFERENCES = [reference(5_000_000), reference(26_000_000), reference(64_000_000)]


def run(parameters: int, tokens: int, bits: float, experts: int = 1) -> RunCurve:
    return RunCurve("mine", parameters * experts, parameters, ((1000, 12.0), (tokens, bits)))


@pytest.mark.parametrize("parameters", [5_000_000, 11_000_000, 26_000_000, 40_000_000, 64_000_000])
def test_a_run_on_the_law_is_normal_at_any_size_between_references(parameters: int) -> None:
    placement = place(run(parameters, 70_000_000, law(parameters, 7e7)), REFERENCES)
    assert placement is not None
    assert placement.expected == pytest.approx(law(parameters, 7e7), rel=1e-6)
    assert placement.share == pytest.approx(1.0, rel=0.03) and not placement.notes
    assert "normal" in placement.sentence()


def test_a_run_that_lags_is_told_by_how_many_tokens() -> None:
    behind = place(run(26_000_000, 100_000_000, law(26e6, 2e7)), REFERENCES)
    assert behind is not None and behind.verdict == "behind"
    assert behind.share == pytest.approx(0.2, rel=0.03)
    assert "behind; the reference was there after 0.20 of your tokens" in behind.sentence()
    ahead = place(run(26_000_000, 100_000_000, law(26e6, 9e8)), REFERENCES)
    assert ahead is not None and ahead.verdict == "ahead"
    assert ahead.share == pytest.approx(9.0, rel=0.03)


def test_the_ends_of_the_curves_are_said() -> None:
    hopeless = place(run(26_000_000, 100_000_000, 13.0), REFERENCES)
    assert (
        hopeless is not None and hopeless.share == 0 and "before its first" in hopeless.sentence()
    )
    better = place(run(26_000_000, 100_000_000, 1.0), REFERENCES)
    assert better is not None and math.isinf(better.share) and "never came" in better.sentence()
    assert place(run(26_000_000, 1000, 9.0), REFERENCES) is None
    longer = place(run(26_000_000, 5_000_000_000, law(26e6, 1e9)), REFERENCES)
    assert longer is not None and "ended after 1B tokens" in longer.sentence()
    assert longer.expected == pytest.approx(law(26e6, 1e9))


def test_sizes_outside_are_compared_with_the_nearest_and_said() -> None:
    large = place(run(640_000_000, 100_000_000, law(64e6, 1e8)), REFERENCES)
    assert large is not None and large.expected == pytest.approx(law(64e6, 1e8))
    assert "r64m is the nearest in size, yours is 10.0 times as large" in large.sentence()
    near = place(run(70_000_000, 100_000_000, law(64e6, 1e8)), REFERENCES)
    assert near is not None and not near.notes


def test_only_references_that_were_trained_so_long_are_taken() -> None:
    short = [reference(5_000_000, last=4e6), reference(26_000_000)]
    placement = place(run(5_000_000, 100_000_000, 5.0), short)
    assert placement is not None and placement.expected == pytest.approx(law(26e6, 1e8))
    assert "0.19 of its size" in placement.sentence()


def test_mixtures_are_compared_with_mixtures_by_active_parameters() -> None:
    mixture = reference(20_000_000, experts=4)
    mine = run(20_000_000, 100_000_000, law(20e6, 1e8), experts=3)
    alike = place(mine, [*REFERENCES, mixture])
    assert alike is not None and "r20m" in alike.reference and not alike.notes
    without = place(mine, REFERENCES)
    assert without is not None and "no mixture among the references" in without.sentence()


def test_a_curve_that_does_not_rise_in_tokens_is_none() -> None:
    with pytest.raises(ValueError, match="tokens that rise"):
        ReferenceRun("x", 1, 1, 1, "", "", "", (2, 1), (1.0, 1.0))
    with pytest.raises(ValueError, match="above 0"):
        ReferenceRun("x", 1, 1, 1, "", "", "", (1, 2), (1.0, math.nan))

"""The token bucket by itself: what is taken within any minute."""

from __future__ import annotations

import pytest

from mengya.endpoint.rate_limit import TokenBucket


@pytest.mark.parametrize(("per_minute", "amount"), [(60, 1), (6000, 250), (100, 30), (10, 40)])
def test_no_minute_takes_more_than_the_rate_and_a_burst(per_minute: float, amount: float) -> None:
    now, uses = 0.0, []
    bucket = TokenBucket(per_minute, now)
    for _ in range(200):
        now += bucket.take(amount, now)
        uses.append(now)
    burst = max(per_minute / 20, amount)
    for start in uses:
        within = sum(amount for at in uses if start <= at < start + 60)
        assert within <= per_minute + burst + amount
    assert uses[-1] == pytest.approx(199 * amount / per_minute * 60, rel=0.1)


def test_what_is_given_back_can_be_taken_at_once() -> None:
    bucket = TokenBucket(60, 0.0)
    bucket.take(30, 0.0)
    assert bucket.take(1, 0.0) > 20
    bucket.give_back(31, 0.0)
    assert bucket.take(3, 0.0) == 0

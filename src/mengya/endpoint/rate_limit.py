"""Token buckets: how long to wait so that a rate is kept. Knows no clock of its own."""

from __future__ import annotations

_BURST_SECONDS = 3.0  # of the rate that may be taken at once


class TokenBucket:
    """Fills by `per_minute` / 60 a second; what is taken beyond its content is waited for.

    Within any 60 seconds at most `per_minute` and one burst (of 3 seconds, or a single amount) are taken.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self._per_second = per_minute / 60
        self._capacity = self._per_second * _BURST_SECONDS
        self._level, self._at = self._capacity, now

    def take(self, amount: float, now: float) -> float:
        """Take `amount`; seconds to wait before it is used."""
        self._fill(now)
        missing = min(amount, self._capacity) - self._level
        self._level -= amount
        return max(0.0, missing / self._per_second)

    def give_back(self, amount: float, now: float) -> None:
        """Return what was taken and not used; a negative amount takes more."""
        self._fill(now)
        self._level = min(self._capacity, self._level + amount)

    def _fill(self, now: float) -> None:
        gained = max(0.0, now - self._at) * self._per_second
        self._level, self._at = min(self._capacity, self._level + gained), max(now, self._at)

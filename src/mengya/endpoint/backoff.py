"""How long to wait before a request is repeated: what the endpoint asks for, else longer each time."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_SECONDS, MOST_SECONDS = 0.5, 60.0


def backoff_seconds(attempt: int, rng: random.Random) -> float:
    """Exponential backoff with full jitter, capped; attempt 0 is the first repetition."""
    return rng.uniform(0.1, 1.0) * min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempt, 30))


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The wait that Retry-After (seconds or a date, RFC 9110) or retry-after-ms asks for; None without one.

    A value that is neither is as none.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    if (seconds := _number(value)) is not None:
        return seconds
    try:
        at = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None

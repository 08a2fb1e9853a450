"""Confidence interval of a share."""

import math

_Z = 1.959964  # standard deviations on either side that hold 95 % of a normal distribution


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval (Wilson 1927) of successes / trials, at 95 %.

    Unlike the normal approximation it stays inside [0, 1] and is right for few trials.
    """
    if trials == 0:
        return 0.0, 1.0
    share, z = successes / trials, _Z
    spread = z / trials * math.sqrt(share * (1 - share) * trials + z * z / 4)
    centre = share + z * z / (2 * trials)
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)

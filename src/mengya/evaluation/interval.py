"""Confidence interval of a share."""

import math


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval (Wilson 1927) of successes / trials, 95 % by default.

    Unlike the normal approximation it stays inside [0, 1] and is right for few trials.
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    spread = z / trials * math.sqrt(share * (1 - share) * trials + z * z / 4)
    centre = share + z * z / (2 * trials)
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)

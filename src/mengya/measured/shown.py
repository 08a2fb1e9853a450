"""Values as they are shown: shares in percent, everything else with the decimals of its unit."""

from __future__ import annotations

_DECIMALS = {"bits/char": 3, "bits/byte": 3, "nats/token": 3, "characters": 1, "tokens": 1}


def shown(value: float, unit: str) -> str:
    """A value without its unit, a share as percent."""
    if unit == "share":
        return f"{value:.1%}"
    decimals = _DECIMALS.get(unit)
    return f"{value:,.{decimals}f}" if decimals is not None else f"{value:,.4g}"


def shown_interval(interval: tuple[float, float] | None, unit: str) -> str:
    """[low, high], or nothing."""
    return "" if interval is None else f"{shown(interval[0], unit)} – {shown(interval[1], unit)}"

"""Changes, counts and times as they are shown; values are in measured/shown.py."""

from __future__ import annotations

from mengya.evaluation.card.render.words import Language, say
from mengya.measured.shown import shown


def shown_change(value: float, unit: str) -> str:
    """With its sign; the change of a share in percentage points."""
    text = f"{abs(100 * value):.1f} pp" if unit == "share" else shown(abs(value), unit)
    return f"{'−' if value < 0 else '+'}{text}"


def shown_p(p: float | None) -> str:
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def shown_count(value: float | None) -> str:
    """Three digits and K, M or G."""
    if value is None:
        return ""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "K")):
        if value >= size:
            return f"{value / (1e3 if letter == 'K' else size):.3g}{letter}"
    return f"{value:,.0f}"


def shown_bytes(value: float) -> str:
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.2f} MB"


def shown_hours(hours: float | None) -> dict[Language, str]:
    if hours is None:
        return say("not_recorded")
    if hours >= 1:
        return say("hours_value", value=f"{hours:.2f}")
    minutes = 60 * hours
    if minutes >= 1:
        return say("minutes_value", value=f"{minutes:.1f}")
    return say("seconds_value", value=f"{60 * minutes:.0f}")

"""Output that a page shows, compared with what came on this machine.

Knows which figures a machine decides (speed, seconds) and which training decides (losses, within a
tolerance); every other character must be the same. Does not know which page or command it is.
"""

from __future__ import annotations

import re

RELATIVE, ABSOLUTE = 0.05, 0.01
"""How far losses may be apart, the larger of the two. The order of additions in a matrix product differs
between CPUs and training adds that up: AVX2 instead of AVX512 changed the tutorial's losses by 0.003 where
they are near zero, and by 2.5 % in the evaluation of its last model."""

_MACHINE = re.compile(
    r"(?<![\w.])[\d,]+(?:\.\d+)?(?= (?:tok/s|s)\b)"
    r"|(?<=B )(?:\?|[\d.]+ \w*B/s) \d+:\d\d:\d\d"  # rich's bar: bytes/s and the time it took
    r"|\[\d+:\d\d<\d+:\d\d, *[\d.]+(?:it/s|s/it)\]"  # tqdm's
)
_TRAINED = re.compile(
    r"(\b(?:loss|nll|bits_per_char|bits per character|nats per token)[ │]+)(\d+\.\d+)"
)
_LAYOUT = re.compile(r" {2,}|[─━]{2,}")  # the width of a table's column follows its figures


def difference(shown: str, came: str) -> str | None:
    """The first line that came otherwise than shown, with the reason; None where there is none."""
    before, after = shown.splitlines(), came.splitlines()
    for number in range(max(len(before), len(after))):
        pair = [lines[number] if number < len(lines) else "" for lines in (before, after)]
        if reason := _line_difference(*pair):
            return f"{reason}\n  shown: {pair[0]}\n  came:  {pair[1]}"
    return None


def _line_difference(shown: str, came: str) -> str | None:
    if _fixed_part(shown) != _fixed_part(came):
        return "another line"
    for (_, old), (_, new) in zip(_TRAINED.findall(shown), _TRAINED.findall(came), strict=True):
        if abs(float(old) - float(new)) > max(ABSOLUTE, RELATIVE * float(old)):
            return f"{old} was shown, {new} came, more than {RELATIVE:.0%} and {ABSOLUTE} apart"
    return None


def _fixed_part(line: str) -> str:
    line = _TRAINED.sub(r"\1~", _MACHINE.sub("#", line))
    return _LAYOUT.sub(lambda match: match[0][0], line).strip()

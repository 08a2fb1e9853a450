"""Every part of an evaluation.json as Measurements: what report card, model card and comparisons read.

text/bits_per_char, text/bits_per_byte, text/nats_per_token      the held-out text of the command
by_position/FIRST-LAST                                           loss by position, four bins together
preference                                                       held-out pairs
passkey, passkey/LENGTH                                          keys found
exam/NAME, exam/NAME/not_contaminated                            without questions that were learned
NAME, NAME/PART                                                  yardsticks
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from mengya.errors import UserError
from mengya.measured.intervals import wilson
from mengya.measured.measurement import Measurement

_BINS = 4  # of by_position that make one figure


def measurements_of(evaluation: Mapping[str, Any]) -> list[Measurement]:
    """Every figure of an evaluation, text first, then exams, yardsticks last.

    Raises:
        UserError: a part is not what `mengya evaluate` writes; names it.
    """
    return [each for part in figures_by_part(evaluation).values() for each in part]


def figures_by_part(evaluation: Mapping[str, Any]) -> dict[str, list[Measurement]]:
    """As `measurements_of`, by the part that they were measured in, as in `measured_by`.

    Raises:
        UserError: as `measurements_of`.
    """
    found: dict[str, list[Measurement]] = {}
    for part, read in _READERS.items():
        values = evaluation.get(part)
        if not values:
            continue
        by_name = part in ("exams", "yardsticks")
        try:
            named = {f"{part}/{name}": (name, v) for name, v in values.items()} if by_name else {}
            for name, arguments in named.items() if by_name else ((part, (values,)),):
                found[name] = [Measurement.from_json(each.to_json()) for each in read(*arguments)]
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise UserError(
                f"{part} of an evaluation.json is not what `mengya evaluate` writes "
                f"({type(error).__name__}: {error}); remove the file and measure again"
            ) from error
    return found


def _text(values: Mapping[str, Any]) -> Iterator[Measurement]:
    unknown = values.get("unknown_tokens")
    note = f"{unknown:,} unknown tokens: not comparable" if unknown else ""
    units = {
        "bits_per_char": "bits/char",
        "bits_per_byte": "bits/byte",
        "nats_per_token": "nats/token",
    }
    for name, unit in units.items():
        yield Measurement(
            f"text/{name}", float(values[name]), None, values["documents"], unit, "lower", note=note
        )


def _by_position(values: Mapping[str, Any]) -> Iterator[Measurement]:
    nats, width = values["nats"], values["width"]
    for start in range(0, len(nats), _BINS):
        bins = nats[start : start + _BINS]
        name = f"by_position/{start * width}-{(start + len(bins)) * width}"
        mean = sum(bins) / len(bins)
        yield Measurement(name, mean, None, values["documents"], "nats/token", "lower")


def _preference(values: Mapping[str, Any]) -> Iterator[Measurement]:
    yield _share("preference", values, values["pairs"], 0.5)


def _passkey(values: list[Mapping[str, Any]]) -> Iterator[Measurement]:
    cells = sorted(values, key=lambda cell: cell["length"])
    yield _found("passkey", cells)
    for length, some in groupby(cells, key=lambda cell: cell["length"]):
        yield _found(f"passkey/{length}", list(some))


def _found(name: str, cells: list[Mapping[str, Any]]) -> Measurement:
    samples = sum(cell["samples"] for cell in cells)
    found = round(sum(cell["accuracy"] * cell["samples"] for cell in cells))
    return Measurement(
        name, found / samples, wilson(found, samples), samples, "share", "higher", 0.0
    )


def _exam(name: str, values: Mapping[str, Any]) -> Iterator[Measurement]:
    shots = f"{values['num_fewshot']}-shot" if "num_fewshot" in values else ""
    name = name.replace("/", ":")  # of a protocol, or of a path: one part of the figure's name
    contamination = values.get("contamination") or {}
    note = "; ".join(
        filter(None, [values.get("protocol"), shots, values.get("note"), contamination.get("note")])
    )
    overall, chance = values["overall"], values.get("chance")
    yield _share(f"exam/{name}", overall, overall["questions"], chance, note)
    if contamination.get("contaminated") and (clean := contamination.get("clean")):
        yield _share(f"exam/{name}/not_contaminated", clean, clean["questions"], chance, shots)


def _share(
    name: str, values: Mapping[str, Any], items: int, chance: float | None, note: str = ""
) -> Measurement:
    low, high = values["interval"]
    return Measurement(
        name, values["accuracy"], (low, high), items, "share", "higher", chance, note
    )


def _yardstick(_name: str, values: list[dict[str, Any]]) -> Iterator[Measurement]:
    yield from map(Measurement.from_json, values)


_READERS = {
    "text": _text,
    "by_position": _by_position,
    "preference": _preference,
    "passkey": _passkey,
    "exams": _exam,
    "yardsticks": _yardstick,
}

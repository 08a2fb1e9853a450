"""judge.json of `mengya judge` as figures of a stage: what a judge says of it and another model.

The file names both sides by what they are (the hash of a checkpoint), so a judgement of weights that are gone
fits no stage. Of two stages the later one has the figures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mengya.errors import UserError
from mengya.evaluation.card.compare import Figure
from mengya.evaluation.card.stage import Stage
from mengya.measured.measurement import Measurement

FILE = "judge.json"
_NO_STAGE = -1  # before all of them


@dataclass(frozen=True)
class Judgement:
    """
    Attributes:
        sides: path and hash of the first and the second.
        measurements: the win rate is the first side's.
        request: all that decided the figures.
    """

    folder: Path
    sides: tuple[tuple[str, str], tuple[str, str]]
    measurements: list[Measurement]
    request: dict[str, Any]


def read_judgement(folder: Path) -> Judgement:
    """
    Raises:
        UserError: the folder has no judge.json that `mengya judge` wrote.
    """
    file = folder / FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        first, second = ((str(s["path"]), str(s["sha256"])) for s in values["request"]["sides"])
        figures = [Measurement.from_json(each) for each in values["measurements"]]
    except OSError as error:
        raise UserError(
            f"judged={folder}: {file} cannot be read ({error.strerror}); name the folder that `mengya judge "
            "FIRST SECOND out=FOLDER` wrote"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{file} is not what `mengya judge` writes ({type(error).__name__}: {error}); run it again with "
            "overwrite=true"
        ) from error
    return Judgement(folder, (first, second), figures, values["request"])


def with_judgements(stages: Sequence[Stage], judgements: Sequence[Judgement]) -> list[Stage]:
    """The stages, with the figures `judge/NAME/OPPONENT` of those that were judged.

    Raises:
        UserError: neither side of a judgement is a stage.
    """
    found = list(stages)
    for judgement in judgements:
        places = [_index(sha256, stages) for _, sha256 in judgement.sides]
        own = places.index(max(places))
        other = 1 - own
        if places[own] == _NO_STAGE:
            (first, _), (second, _) = judgement.sides
            raise UserError(
                f"judged={judgement.folder}: it compares {first} with {second}, and neither has the weights "
                "of a stage of this card; judge again, or leave it out"
            )
        is_stage = places[other] != _NO_STAGE
        path = Path(judgement.sides[other][0])
        opponent = stages[places[other]].place.name if is_stage else path.name
        figures = _figures(judgement, opponent.replace("/", ":"), is_second=own == 1)
        named = {figure.measurement.name: figure for figure in figures}
        at = places[own]
        found[at] = replace(found[at], figures={**found[at].figures, **named})
    return found


def _index(sha256: str, stages: Sequence[Stage]) -> int:
    return next((i for i, stage in enumerate(stages) if stage.sha256 == sha256), _NO_STAGE)


def _figures(judgement: Judgement, opponent: str, is_second: bool) -> list[Figure]:
    paths = " ".join(path for path, _ in judgement.sides)
    origin = {
        "command": f"mengya judge {paths} out={judgement.folder}",
        "seed": judgement.request.get("seed"),
        "settings": {k: v for k, v in judgement.request.items() if k != "sides"},
    }
    return [
        Figure(_of_side(each, opponent, is_second), "judge", origin, [])
        for each in judgement.measurements
    ]


def _of_side(measurement: Measurement, opponent: str, is_second: bool) -> Measurement:
    """Named after the opponent; a win rate as the side has it that is shown."""
    renamed = replace(measurement, name=f"{measurement.name}/{opponent}")
    if not is_second or not measurement.name.startswith("judge/win_rate"):
        return renamed
    interval = measurement.interval
    return replace(
        renamed,
        value=1 - measurement.value,
        interval=(1 - interval[1], 1 - interval[0]) if interval else None,
    )

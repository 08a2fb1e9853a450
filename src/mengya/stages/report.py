"""`mengya report STAGE...`: the life of a model on fixed yardsticks, as card.html, card.md and card.json.

Measures on every stage what it lacks, with the same settings for all, then writes the card from every stage's
evaluation.json.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mengya.config import Config, OneOrMany, load_config
from mengya.errors import UserError
from mengya.evaluation.card.content import card_values
from mengya.evaluation.card.judged import read_judgement, with_judgements
from mengya.evaluation.card.life import Place, find_life, run_of
from mengya.evaluation.card.render.html import render_html
from mengya.evaluation.card.render.markdown import render_markdown
from mengya.evaluation.card.stage import read_stage
from mengya.evaluation.registry import YARDSTICKS
from mengya.export.card.lineage import lineage_of
from mengya.models.hf.open_checkpoint import find_checkpoint
from mengya.runtime.files import write_text
from mengya.runtime.folder_lock import say
from mengya.runtime.output_folder import FolderKind, open_run_folder
from mengya.runtime.typed_command import typed_command
from mengya.stages import evaluate

FILES = ("card.html", "card.md", "card.json")
FOLDER = FolderKind("report", FILES)
_NOT_FOR_ALL = {
    "checkpoint": "the stages are named without a key: leave it out",
    "out": "each stage has its own evaluation.json: leave it out",
    "text_shards": "shards are of one tokenizer: write evaluate.texts=FILE",
}


class ReportConfig(Config):
    stages: OneOrMany[Path] = Field(min_length=1)
    """Run folders, checkpoints, adapters, quantized folders, or a parent folder of such, whose stages are put
    in the order of their lineage."""
    out: Path | None = None
    """Folder of card.html, card.md and card.json; null: `card` in the parent or run folder, where only
    that is named, else runs/card."""
    evaluate: dict[str, Any] = {}
    """Keys of `mengya evaluate` for all stages: evaluate.exams=FOLDER, evaluate.texts=FILE. Without
    evaluate.yardsticks all yardsticks are measured."""
    judged: OneOrMany[Path] = []
    """Folders of `mengya judge`: their win rates are shown with the stage that was judged."""
    measure: bool = True
    """Measure what a stage lacks; false reads only what was measured before."""
    language: Literal["zh", "en"] = "zh"
    """Language of card.md, and of card.html at first: that one switches."""


def run(config: ReportConfig) -> None:
    """Measure, then write the three files.

    Raises:
        UserError: a stage cannot be found, read or measured.
    """
    places = find_life(config.stages)
    settings = _settings(config, places)
    judgements = [read_judgement(folder) for folder in config.judged]
    out = config.out or _default_folder(config)
    with open_run_folder(out, FOLDER, key="out"):
        if config.measure:
            for place, measured in zip(places, settings, strict=True):
                _measure(place, measured)
        stages = [read_stage(place, _data(place)) for place in places]
        stages = with_judgements(stages, judgements)
        values = card_values(stages, typed_command("report", config, "stages"))
        css = files("mengya.web").joinpath("page/base.css").read_text(encoding="utf-8")
        write_text(out / "card.json", json.dumps(values, ensure_ascii=False, indent=1) + "\n")
        write_text(out / "card.md", render_markdown(values, config.language))
        write_text(out / "card.html", render_html(values, css, config.language))
    say(f"{len(places)} stages: {', '.join(place.name for place in places)}")
    say(f"written to {out / 'card.html'}, card.md and card.json")


def _settings(config: ReportConfig, places: list[Place]) -> list[evaluate.EvaluateConfig]:
    """What to measure on each stage, the same for all.

    Raises:
        UserError: a key of `evaluate` is unknown, or stands for a single checkpoint.
    """
    for key, remedy in _NOT_FOR_ALL.items():
        if key in config.evaluate:
            raise UserError(f"evaluate.{key}: {remedy}")
    keys = {"yardsticks": sorted(YARDSTICKS), **config.evaluate}
    return [
        load_config(evaluate.EvaluateConfig, None, {"checkpoint": place.folder, **keys})
        for place in places
    ]


def _measure(place: Place, config: evaluate.EvaluateConfig) -> None:
    say(f"measuring {place.name} ({place.folder})")
    try:
        with evaluate.open_file(config) as file:
            evaluate.measure(config, show_progress=sys.stderr.isatty(), file=file)
    except UserError as error:
        raise UserError(
            f"stage {place.name}: {error}\n(measure=false writes the card of what is measured already)"
        ) from error


def _data(place: Place) -> list[dict[str, Any]]:
    """What a stage itself was trained on; [] where no run tells."""
    runs = lineage_of(place.folder).runs
    return [asdict(source) for source in runs[0].sources] if place.run and runs else []


def _default_folder(config: ReportConfig) -> Path:
    if len(config.stages) == 1:
        path = config.stages[0]
        try:
            folder = find_checkpoint(path)
        except UserError:
            return path / "card"  # a parent folder: find_life found stages in it
        if (run := run_of(folder)) is not None and path.resolve() == run.resolve():
            return path / "card"
    return Path("runs/card")

"""card.html: the values of card.json on one page that needs no network, with charts that zoom.

Every text of a model, a file or a name is escaped by the template; the script reads the data from one JSON
block and writes text only. The page allows no script but its own, by hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from mengya.evaluation.card.render import numbers
from mengya.evaluation.card.render.words import (
    LANGUAGES,
    Both,
    Language,
    chart_name,
    figure_name,
    kind_name,
    say,
)
from mengya.measured.shown import shown, shown_interval
from mengya.text.visible import visible

_SCRIPT_WORDS = (
    "value", "interval", "change", "change_interval", "p_paired", "p_unpaired", "items_word", "note",
    "command", "seed", "hardware", "dtype", "versions", "commit", "contamination", "settings", "unknown",
    "no_origin", "better", "worse", "same", "unclear", "changed", "mark_epoch", "mark_skipped",
    "mark_spike", "mark_resume", "mark_rewind", "held_out", "steps", "tokens",
)  # fmt: skip


def render_html(values: Mapping[str, Any], base_css: str, language: Language) -> str:
    """The page, in `language` at first.

    Args:
        base_css: colours and type of mengya's pages.
    """
    environment = Environment(
        loader=PackageLoader("mengya.evaluation.card.render", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "both": both,
        "clean": clean,
        "number": numbers.shown_count,
        "bytes": numbers.shown_bytes,
    }
    script = _file("card.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("card.html.jinja").render(
        values=values,
        language=language,
        css=Markup(base_css + _file("card.css")),  # our own files
        script=Markup(script),
        script_hash=digest,
        data=Markup(_json_block(values)),
        say=lambda key, **fields: both(say(key, **fields)),
        kind=lambda name: both(kind_name(name)),
        attribute=lambda key: " / ".join(say(key).values()),
        groups=list(_groups(values["rows"])),
        headline=[row for row in values["rows"] if row["headline"]],
        cell=_cell,
        chance_of=lambda row: shown(row["chance"], row["unit"]),
        charts=list(_charts(values["stages"])),
        by_stage=_findings_by_stage(values["findings"], len(values["stages"])),
        hours=lambda hours: both(numbers.shown_hours(hours)),
        chance_marks=round(values["comparisons"]["count"] * values["comparisons"]["significant"]),
    )


def both(text: Both) -> Markup:
    """A sentence in both languages, of which the page shows one."""
    spans = (
        Markup('<span lang="{}">{}</span>').format(name, clean(text[name])) for name in LANGUAGES
    )
    return Markup("").join(spans)


def clean(text: object) -> str:
    """Text in which nothing hides or turns the direction of what stands around it."""
    return visible(str(text))


def _json_block(values: Mapping[str, Any]) -> str:
    """JSON that no text in it can end: `<` is escaped."""
    stages = [{"name": clean(s["name"]), "curves": s["curves"]} for s in values["stages"]]
    kept = ("title", "unit", "chance", "cells")
    rows = {row["name"]: {key: row[key] for key in kept} for row in values["rows"]}
    shown = {
        "stages": stages,
        "rows": rows,
        "origins": values["origins"],
        "words": {key: say(key) for key in _SCRIPT_WORDS},
    }
    return json.dumps(shown, ensure_ascii=True).replace("<", "\\u003c")


def _cell(row: Mapping[str, Any], number: int) -> Markup:
    """One figure of one stage: value, interval, and the mark of its change."""
    cell = row["cells"][number]
    if cell is None:
        return Markup('<span class="none">{}</span>').format(both(say("not_measured")))
    if cell["value"] is None:
        return Markup('<span class="none" title="{}">{}</span>').format(
            cell["note"], both(say("not_applicable"))
        )
    parts = [Markup("<b>{}</b>").format(shown(cell["value"], row["unit"]))]
    if cell["interval"]:
        low, high = cell["interval"]
        interval = shown_interval((low, high), row["unit"])
        parts.append(Markup('<span class="interval">{}</span>').format(interval))
    if cell["above_chance"] is not None:
        key = "above_chance" if cell["above_chance"] else "not_above_chance"
        parts.append(Markup('<span class="chance {}">{}</span>').format(key, both(say(key))))
    if change := cell["change"]:
        text = numbers.shown_change(change["mean"], row["unit"])
        p = f" {numbers.shown_p(change['p'])}" if change["p"] is not None else ""
        mark = (
            '<span class="mark {}"><i aria-hidden="true"></i>{} <span class="moved">{}</span>'
            "<small>{}</small></span>"
        )
        word = both(say(change["verdict"]))
        parts.append(Markup(mark).format(change["verdict"], word, text, p))
    elif not cell["comparable"]:
        parts.append(
            Markup('<span class="mark unclear">{}</span>').format(both(say("not_compared")))
        )
    return Markup("").join(parts)


def _groups(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The figures that are not in the headline table, by their group."""
    for name in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == name and not row["headline"]]
        if own:
            yield {"name": name, "title": figure_name(name), "rows": own}


def _charts(stages: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A chart a metric, what was held out in the same one; a yardstick's parts are in card.json only."""
    found = [name for stage in stages for name in (stage["curves"] or {}).get("series", {})]
    plain = dict.fromkeys(name.removeprefix("validation/") for name in found)
    for name in plain:
        if name.startswith("yardstick/") and name.rpartition("/")[0] in plain:
            continue
        names = [n for n in (name, f"validation/{name}") if n in found]
        yield {"name": name, "title": chart_name(name), "series": json.dumps(names)}


def _findings_by_stage(
    findings: Sequence[Mapping[str, Any]], stages: int
) -> list[list[Mapping[str, Any]]]:
    return [[each for each in findings if each["stage"] == number] for number in range(stages)]


def _file(name: str) -> str:
    folder = files("mengya.evaluation.card.render").joinpath("templates")
    return folder.joinpath(name).read_text(encoding="utf-8")

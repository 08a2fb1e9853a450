"""report.html: the curves, samples and settings of one or several runs on one page, no network needed.

Takes run folders (metrics.jsonl, samples.jsonl, config.yaml) and optional tables; writes one file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from mengya.runtime.files import write_text
from mengya.runtime.jsonl import read_metrics, read_steps
from mengya.training.telemetry.svg import new_figure, to_svg
from mengya.training.telemetry.yardsticks import PREFIX, SHARE

# One picture per row: title, the series drawn in it.
_PICTURES = [
    ("loss (nats per item)", ["loss", "nll", "validation/loss", "validation/nll"]),
    ("bits per character, held-out", ["validation/bits_per_char"]),
    ("preference accuracy", ["accuracy", "validation/accuracy"]),
    (
        "rewards: beta (log p - log p of the reference)",
        [
            "rewards_chosen",
            "rewards_rejected",
            "validation/rewards_chosen",
            "validation/rewards_rejected",
        ],
    ),
    ("reward margin: chosen - rejected", ["margin", "validation/margin"]),
    ("load-balancing loss", ["aux_loss"]),
    ("gradient norm", ["grad_norm"]),
    ("learning rate", ["lr"]),
    ("tokens per second", ["tokens_per_second"]),
    ("MFU: share of the device's peak", ["mfu"]),
]

HELD_OUT = "validation/"
_SAME = 0.005  # of the height of a picture: about a line's width

_SHARE = r"experts/layer\d+/\d+"
_SOURCE_SHARE = re.compile(r"data/(.+)/share")


@dataclass(frozen=True)
class ReportTable:
    """A table above the curves."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class ReportSection:
    """Pictures with words, above the curves of the runs; a cause and its check make a row of `table`."""

    title: str
    paragraphs: Sequence[str] = ()
    pictures: Sequence[Markup] = ()
    table: ReportTable | None = None


def write_report(
    path: Path,
    title: str,
    run_dirs: Sequence[Path],
    tables: Sequence[ReportTable] = (),
    sections: Sequence[ReportSection] = (),
) -> None:
    """Write the page atomically: sections, tables, then the runs in the order given."""
    environment = Environment(
        loader=PackageLoader("mengya.training.telemetry", "templates"), autoescape=True
    )
    runs = [_run_section(run_dir) for run_dir in run_dirs]
    page = environment.get_template("report.html.jinja").render(
        title=title, runs=runs, tables=tables, sections=sections
    )
    write_text(path, page)


def _run_section(run_dir: Path) -> dict[str, Any]:
    metrics = list(read_metrics(run_dir / "metrics.jsonl"))
    samples = list(read_steps(run_dir / "samples.jsonl"))
    steps = sorted({sample["step"] for sample in samples})
    shown = {*steps[:1], *steps[len(steps) // 2 :][:1], *steps[-1:]}  # first, middle, last
    config = run_dir / "config.yaml"
    return {
        "name": run_dir.name,
        "pictures": [svg for svg in _pictures(metrics) if svg],
        "samples": [
            {**sample, "drawn": _drawn(sample)} for sample in samples if sample["step"] in shown
        ],
        "config": config.read_text(encoding="utf-8") if config.is_file() else "",
    }


def _drawn(sample: dict[str, Any]) -> str:
    """How a sample was drawn; empty where an earlier version did not write it."""
    temperature = sample.get("temperature")
    if temperature is None:
        return ""
    return "0 (greedy)" if temperature == 0 else f"{temperature:g}"


def _pictures(metrics: Sequence[dict[str, Any]]) -> Iterator[Markup | None]:
    for title, names in _PICTURES:
        yield _draw(metrics, title, names)
    yield from _draw_yardsticks(metrics)
    yield _draw_sources(metrics)
    entropy = sorted(
        {n for m in metrics for n in m if re.fullmatch(r"experts/layer\d+/entropy", n)}
    )
    yield _draw(metrics, "evenness of the load (entropy, 1 = even)", entropy)
    yield _draw_load(metrics)


def _draw_yardsticks(metrics: Sequence[dict[str, Any]]) -> Iterator[Markup | None]:
    """Of each the figure over all, and one picture of its parts, with the share of the time in the title."""
    logged = dict.fromkeys(name for m in metrics for name in m if name.startswith(PREFIX))
    shares = [m[SHARE] for m in metrics if SHARE in m]
    for yardstick in dict.fromkeys(name.split("/")[1] for name in logged):
        own = f"{PREFIX}{yardstick}"
        parts = [name for name in logged if name.startswith(f"{own}/")]
        yield _draw(metrics, f"{yardstick} (all yardsticks: {shares[-1]:.1%} of the time)", [own])
        yield _draw(metrics, f"{yardstick} by part", parts)


def _draw_sources(metrics: Sequence[dict[str, Any]]) -> Markup | None:
    """The share of every source in the tokens of each line, one on the other; None for a single source."""
    steps = [m for m in metrics if any(_SOURCE_SHARE.fullmatch(name) for name in m)]
    names = list(dict.fromkeys(n for m in steps for n in m if _SOURCE_SHARE.fullmatch(n)))
    if len(names) < 2:
        return None
    figure, axes = new_figure(height=3.0)
    labels = [name.split("/", 1)[1].removesuffix("/share") for name in names]
    values = [[m.get(name, 0.0) for m in steps] for name in names]
    axes.stackplot([m["step"] for m in steps], values, labels=labels, alpha=0.8)
    axes.set_ylim(0, 1)
    axes.margins(x=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8, loc="lower left")
    # Text stays text, in the fonts of the reader: those of matplotlib have no Chinese for the names.
    return to_svg(figure, axes, "share of tokens by source", fonttype="none")


def _draw_load(metrics: Sequence[dict[str, Any]]) -> Markup | None:
    """A heatmap, experts of all layers by steps: 1 is an even share, dark is less."""
    steps = [m for m in metrics if any(name.startswith("experts/") for name in m)]
    rows = [name for name in (steps[0] if steps else ()) if re.fullmatch(_SHARE, name)]
    if not rows:
        return None
    layers = [name.split("/")[1] for name in rows]
    experts = layers.count(layers[0])
    figure, axes = new_figure(height=min(3.0 + len(rows) / 24, 12.0))
    values = [[m.get(name, math.nan) * experts for m in steps] for name in rows]
    picture = axes.imshow(values, aspect="auto", vmin=0, vmax=2, interpolation="nearest")
    starts = range(0, len(rows), experts)
    axes.set_yticks(list(starts), [layers[row] for row in starts], fontsize=7)
    shown = sorted({0, len(steps) // 2, len(steps) - 1})
    axes.set_xticks(shown, [str(steps[i]["step"]) for i in shown], fontsize=8)
    figure.colorbar(picture, ax=axes, label="share / even share")
    return to_svg(figure, axes, "load of experts")


def _draw(metrics: Sequence[dict[str, Any]], title: str, names: Sequence[str]) -> Markup | None:
    """The series as inline SVG, or None when no step has any of them.

    What was held out has the colour of the same metric in training, dashed, with marks.
    """
    series = {name: [(m["step"], m[name]) for m in metrics if name in m] for name in names}
    series = _without_doubles({name: points for name, points in series.items() if points})
    if not series:
        return None
    figure, axes = new_figure(height=3.0)
    colours = list(dict.fromkeys(name.removeprefix(HELD_OUT) for name in series))
    for name, points in series.items():
        held_out = name.startswith(HELD_OUT)
        axes.plot(
            *zip(*points, strict=True),
            label=name,
            color=f"C{colours.index(name.removeprefix(HELD_OUT))}",
            linestyle="--" if held_out else "-",
            marker="o" if held_out else None,
            markersize=3,
        )
    axes.grid(alpha=0.3)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(series) > 1:
        axes.legend(fontsize=8)
    return to_svg(figure, axes, title)


def _without_doubles(
    series: dict[str, list[tuple[int, float]]],
) -> dict[str, list[tuple[int, float]]]:
    """Without nll where it lies on the loss: they differ by the losses of experts and z_loss alone."""
    values = [v for points in series.values() for _, v in points if math.isfinite(v)]
    near = _SAME * (max(values) - min(values)) if values else 0.0
    kept = dict(series)
    for start in ("", HELD_OUT):
        loss, nll = kept.get(f"{start}loss", []), dict(kept.get(f"{start}nll", []))
        if loss and all(not abs(v - nll.get(step, v)) > near for step, v in loss):
            kept.pop(f"{start}nll", None)
    return kept

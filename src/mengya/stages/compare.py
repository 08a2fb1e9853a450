"""`mengya compare RUN RUN ...`: several runs or checkpoints on one page, and where each stands.

Curves over one another, final figures with the p of every difference to the first, and the runs over the
reference curves. Reads what runs and `mengya evaluate` wrote; of a run without points on the reference text
it measures the checkpoints. Writes one HTML file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt
from rich.console import Console
from rich.table import Table

from mengya.config import Config, OneOrMany
from mengya.errors import UserError
from mengya.evaluation.compared import Items, paired_p, yardstick_of
from mengya.evaluation.record.file import items_path
from mengya.evaluation.reference.placement import RunCurve
from mengya.evaluation.reference.reference_text import NAME as REFERENCE_TEXT
from mengya.evaluation.results import indented, parts_below
from mengya.measured.evaluation import FILE, read_evaluation
from mengya.measured.figures import measurements_of
from mengya.measured.measurement import Measurement
from mengya.models.hf.open_checkpoint import DtypeName, find_checkpoint, pick_dtype
from mengya.runtime.device import DeviceName, init_device
from mengya.runtime.folder_lock import say
from mengya.runtime.jsonl import read_jsonl, read_metrics
from mengya.stages.run.run_curve import logged_curve, measured_curve
from mengya.stages.run.standing import standing_section
from mengya.training.telemetry.overlay import Line, draw_lines
from mengya.training.telemetry.report import ReportSection, ReportTable, write_report
from mengya.training.telemetry.yardsticks import PREFIX

_CURVES = {
    "loss": "loss (nats per item)",
    "validation/bits_per_char": "bits per character, held-out",
    "validation/loss": "loss, held-out",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
}
_NO_FIGURES = (
    "no figures: `mengya evaluate {run} yardsticks=reference_text` (and others) writes some"
)
_NO_P = "no p: measured on other items (another limit), or kept without items"
_NO_CURVE = (
    "{run}: not laid over the reference curves, which are of runs from random weights: it has no points on "
    "the reference text and no metrics.jsonl that says how many tokens its checkpoints had read"
)


class CompareConfig(Config):
    runs: OneOrMany[Path] = Field(min_length=1)
    """Run folders or checkpoints; differences are taken to the first. One alone is laid over the reference
    curves."""
    checkpoints: bool = True
    """Measure the checkpoints of a run that logged nothing on the reference text; false: only read."""
    device: DeviceName = "auto"
    """auto: CUDA where there is a GPU, else the CPU."""
    threads: PositiveInt | None = None
    """CPU threads that share a computation of torch; null: torch's own choice, OMP_NUM_THREADS or else one
    a core."""
    dtype: DtypeName = "auto"
    """dtype of the weights; auto: float32 on CPU, bfloat16 elsewhere."""
    out: Path = Path("compare.html")
    """The page to write."""


@dataclass(frozen=True)
class Compared:
    """A run or checkpoint: what is written of it, and its curve on the reference text."""

    name: str
    path: Path
    metrics: list[dict[str, Any]]
    figures: dict[str, Measurement]
    items: Items
    curve: RunCurve | None


def run(config: CompareConfig) -> None:
    """Print the figures and where each run stands; write the page.

    Raises:
        UserError: a path is neither run nor checkpoint, or what it holds cannot be read.
    """
    if config.out.is_dir():
        raise UserError(
            f"out={config.out} is a folder; write the name of a page, {config.out}/compare.html"
        )
    compared = [
        _read(name, path, config)
        for name, path in zip(_names(config.runs), config.runs, strict=True)
    ]
    table = figures_table(compared)
    curves = {each.path: each.curve for each in compared if each.curve is not None}
    sections = [standing_section(curves)] if curves else []
    if pictures := _overlays(compared):
        sections.append(ReportSection("Curves over one another", pictures=pictures))
    runs = [each.path for each in compared if each.metrics]
    write_report(
        config.out,
        f"mengya compare: {', '.join(each.name for each in compared)}",
        runs,
        [ReportTable("Figures", *table)] if table[1] else [],
        sections,
    )
    _print(compared, sections)
    Console(stderr=True).print(f"written to {config.out}", highlight=False, markup=False)


def figures_table(
    compared: Sequence[Compared], intervals: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: every figure of any; after each but the first the p of its difference to that."""
    first, *others = compared
    header = ["figure", first.name, *(cell for other in others for cell in (other.name, "p"))]
    rows = []
    for name in _by_yardstick(compared):
        row = [name, _cell(first.figures.get(name), intervals)]
        for other in others:
            p = paired_p(name, first.items, other.items)
            row += [_cell(other.figures.get(name), intervals), "" if p is None else f"{p:.2g}"]
        rows.append(row)
    return header, rows


def _by_yardstick(compared: Sequence[Compared]) -> list[str]:
    """The names of all figures; the parts of a yardstick stand together, whoever has them."""
    names = dict.fromkeys(name for each in compared for name in each.figures)
    order = list(dict.fromkeys(yardstick_of(name)[0] for name in names))
    return parts_below(sorted(names, key=lambda name: order.index(yardstick_of(name)[0])))


def _cell(figure: Measurement | None, interval: bool) -> str:
    if figure is None or not figure.items:
        return "-"
    shown = "{:.1%}" if figure.unit == "share" else "{:.4g}"
    text = shown.format(figure.value)
    if interval and figure.interval is not None:
        text += f" [{', '.join(shown.format(bound) for bound in figure.interval)}]"
    return text


def _read(name: str, path: Path, config: CompareConfig) -> Compared:
    metrics = list(read_metrics(path / "metrics.jsonl"))
    checkpoint = find_checkpoint(path) if not metrics or (path / "checkpoints").is_dir() else None
    figures: dict[str, Measurement] = {}
    items: dict[str, list[dict[str, Any]]] = {}
    if checkpoint is not None:
        file = checkpoint / FILE
        figures = {each.name: each for each in _measurements(file)}
        for kind in dict.fromkeys(yardstick_of(each)[0] for each in figures):
            part = (
                f"exams/{kind.removeprefix('exam/')}"
                if kind.startswith("exam/")
                else f"yardsticks/{kind}"
            )
            items[kind] = list(read_jsonl(items_path(file, part)))
    curve = logged_curve(path) if checkpoint is not None else None
    if curve is None and checkpoint is not None and config.checkpoints and metrics:
        say(f"{path}: measuring its checkpoints on the reference text ...")
        device = init_device(config.device, config.threads)
        curve = measured_curve(path, device, pick_dtype(config.dtype, device))
    return Compared(name, path, metrics, figures, items, curve and replace(curve, name=name))


def _measurements(file: Path) -> list[Measurement]:
    evaluation = read_evaluation(file)
    try:
        return measurements_of(evaluation)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many more as tell them apart.

    Raises:
        UserError: one is given twice.
    """
    real = [path.resolve() for path in paths]
    if len(set(real)) < len(real):
        twice = next(path for path in paths if real.count(path.resolve()) > 1)
        raise UserError(f"{twice} is given twice; name each run once")
    depth = 1
    while len({path.parts[-depth:] for path in real}) < len(real):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in real]


def _overlays(compared: Sequence[Compared]) -> list[Any]:
    yardsticks = dict.fromkeys(
        name
        for each in compared
        for line in each.metrics
        for name in line
        if name.startswith(PREFIX) and name.count("/") == 1 and name != f"{PREFIX}{REFERENCE_TEXT}"
    )
    titles = {**_CURVES, **{name: name.removeprefix(PREFIX) for name in yardsticks}}
    pictures = (
        draw_lines(title, [Line(c.name, _by_tokens(c.metrics, name)) for c in compared])
        for name, title in titles.items()
    )
    return [picture for picture in pictures if picture is not None]


def _by_tokens(metrics: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """The points of a metric over the tokens that the run had read, by the last line that says so."""
    points, tokens = [], 0
    for line in metrics:
        tokens = line.get("tokens", tokens)
        if name in line:
            points.append((tokens, line[name]))
    return points


def _print(compared: Sequence[Compared], sections: Sequence[ReportSection]) -> None:
    """Figures without intervals and bits per byte, which the page has, and where each run stands."""
    console = Console()
    header, rows = figures_table(compared, intervals=False)
    per_byte = {name for c in compared for name, f in c.figures.items() if f.unit == "bits/byte"}
    rows = [row for row in rows if row[0] not in per_byte]
    if rows:
        names = [row[0] for row in rows]
        shown = Table()
        for number, name in enumerate(header):
            shown.add_column(name, overflow="fold", justify="left" if number == 0 else "right")
        for name, *cells in rows:
            shown.add_row(*(cell.replace("[", r"\[") for cell in (indented(name, names), *cells)))
        console.print(shown)
        if any(row[-1] == "" and "-" not in (row[1], row[-2]) for row in rows if len(row) > 2):
            console.print(_NO_P, highlight=False, soft_wrap=True)
    for each in compared:
        if not each.figures:
            line = f"{each.name}: {_NO_FIGURES.format(run=each.path)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(compared) == 1 and compared[0].curve is None:
        console.print(_NO_CURVE.format(run=compared[0].name), highlight=False, soft_wrap=True)
    for section in sections:
        for paragraph in section.paragraphs[1:]:
            console.print(paragraph, highlight=False, markup=False, soft_wrap=True)
        for _, cause, seen, check in section.table.rows if section.table else ():
            line = f"  {cause}" + (f" ({seen})" if seen != "-" else "") + f": {check}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)

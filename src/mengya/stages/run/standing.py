"""The section "Is my loss normal?" of a page: runs over the reference curves, where each stands, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mengya.evaluation.reference.causes import usual_causes
from mengya.evaluation.reference.curves import load_curves
from mengya.evaluation.reference.placement import Placement, RunCurve, place
from mengya.runtime.jsonl import read_metrics
from mengya.runtime.yaml_values import read_object
from mengya.stages.run.run_curve import logged_curve
from mengya.training.telemetry.overlay import Line, draw_lines
from mengya.training.telemetry.report import ReportSection, ReportTable

TITLE = "Is my loss normal?"
_ABOUT = (
    "Bits per character on the reference text that ships with mengya, whatever the tokenizer; grey are runs "
    "of our own (docs/evaluation.md)."
)


def standing_of_run(run_dir: Path) -> list[ReportSection]:
    """The section for a run that measured reference_text while it trained; none for others."""
    curve = logged_curve(run_dir)
    return [] if curve is None else [standing_section({run_dir: curve})]


def standing_section(curves: dict[Path, RunCurve]) -> ReportSection:
    """Draw and place runs; one of them that lags gets the usual causes, one of several by its name."""
    references = load_curves()
    lines = [
        Line(r.name, list(zip(r.tokens, r.bits_per_char, strict=True)), True) for r in references
    ]
    lines += [Line(curve.name, curve.points) for curve in curves.values()]
    picture = draw_lines("bits per character, reference text", lines, logarithmic=True)
    placed = {run_dir: place(curve, references) for run_dir, curve in curves.items()}
    sentences = [
        f"{curves[run_dir].name}: {standing_sentence(placement)}"
        for run_dir, placement in placed.items()
    ]
    behind = [d for d, placement in placed.items() if placement and placement.verdict == "behind"]
    table = _causes(behind, curves) if behind else None
    return ReportSection(TITLE, [_ABOUT, *sentences], [picture] if picture else [], table)


def standing_sentence(placement: Placement | None) -> str:
    if placement is None:
        return "too early to say: the references begin after more tokens."
    return placement.sentence()


def _causes(behind: Sequence[Path], curves: dict[Path, RunCurve]) -> ReportTable:
    rows = []
    for run_dir in behind:
        metrics = list(read_metrics(run_dir / "metrics.jsonl"))
        active = curves[run_dir].active_parameters
        causes = usual_causes(read_object(run_dir / "config.yaml"), metrics, active, str(run_dir))
        rows += [(curves[run_dir].name, c.name, c.seen or "-", c.check) for c in causes]
    header = ("run", "cause", "what in the run speaks for it", "how to check")
    return ReportTable("Usual causes, those that something speaks for first", header, rows)

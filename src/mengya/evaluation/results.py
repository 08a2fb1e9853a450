"""What one evaluation measured, and the table that a person reads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from rich.table import Table

from mengya.evaluation.exams.result import ExamResult
from mengya.evaluation.likelihood.bits_per_char import BitsPerChar
from mengya.evaluation.likelihood.by_position import ByPosition
from mengya.evaluation.likelihood.preference import PreferenceAccuracy
from mengya.evaluation.long_context.passkey import PasskeyCell
from mengya.evaluation.score import Score
from mengya.measured.measurement import Measurement

_NAME = 32  # characters of a name that stay on one line


@dataclass(frozen=True)
class Evaluation:
    """What was measured; None or empty where it was not asked for.

    exams: by name, or by that of the folder or file, by path where two have the same name; with /PROTOCOL
        where it was asked by several.
    yardsticks: the figures of each, by its name.
    """

    checkpoint: str
    text: BitsPerChar | None = None
    by_position: ByPosition | None = None
    preference: PreferenceAccuracy | None = None
    passkey: list[PasskeyCell] = field(default_factory=list)
    exams: dict[str, ExamResult] = field(default_factory=dict)
    yardsticks: dict[str, list[Measurement]] = field(default_factory=dict)


def results_table(result: Evaluation) -> Table:
    """One row a measure: its value, the 95 % interval where there is one, and what it was measured on."""
    table = Table(title=result.checkpoint.replace("[", r"\["), title_justify="left")
    table.add_column("measure", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("of", overflow="fold")
    if text := result.text:
        of = f"{text.characters:,} characters, {text.documents:,} documents, window {text.window:,}"
        if text.unknown_tokens:
            of += f"; {text.unknown_tokens:,} unknown tokens: not comparable"
        table.add_row("bits per character", f"{text.bits_per_char:.4f}", "", of)
        table.add_row("nats per token", f"{text.nats_per_token:.4f}", "", f"{text.tokens:,} tokens")
    if by_position := result.by_position:
        for start in range(0, len(by_position.nats), 4):
            nats = sum(by_position.nats[start : start + 4]) / 4
            first, last = start * by_position.width, (start + 4) * by_position.width
            of = f"{by_position.documents:,} documents"
            table.add_row(f"nats per token at {first:,} to {last:,}", f"{nats:.4f}", "", of)
    for cell in result.passkey:
        low, high = cell.interval
        name = f"passkey in {cell.length:,} tokens, depth {cell.depth:.0%}"
        interval = f"{low:.1%} to {high:.1%}"
        table.add_row(name, f"{cell.accuracy:.1%}", interval, f"{cell.samples:,} keys")
    if preference := result.preference:
        of = f"{preference.pairs:,} pairs, by mean log p per token; {preference.accuracy_by_sum:.1%} by sum"
        low, high = preference.interval
        table.add_row(
            "preference accuracy", f"{preference.accuracy:.1%}", f"{low:.1%} to {high:.1%}", of
        )
    for name, exam in result.exams.items():
        _add_exam(table, name, exam)
    for measurements in result.yardsticks.values():
        of_name = {measurement.name: measurement for measurement in measurements}
        for name in parts_below(of_name):
            add_measurement(table, of_name[name], indented(name, of_name))
    # In a terminal of 80 columns the last column is the one to wrap.
    table.columns[0].no_wrap = max(map(len, map(str, table.columns[0].cells)), default=0) <= _NAME
    return table


def parts_below(names: Collection[str]) -> list[str]:
    """Every part after what it is a part of, else as they come: pairs, pairs/negation, loops."""
    place = {name: number for number, name in enumerate(names)}
    return sorted(names, key=lambda name: [place[each] for each in (*_above(name, names), name)])


def indented(name: str, names: Collection[str]) -> str:
    """A part below what it is a part of, as far as that is among `names`: pairs/negation after pairs."""
    above = _above(name, names)
    return "  " * len(above) + name.removeprefix(f"{above[-1]}/" if above else "")


def _above(name: str, names: Collection[str]) -> list[str]:
    return sorted((other for other in names if name.startswith(f"{other}/")), key=len)


def _add_exam(table: Table, name: str, exam: ExamResult) -> None:
    """Subjects, categories, then the sum of it, which says how it compares with guessing."""
    subjects = exam.subjects if len(exam.subjects) > 1 else {}
    if subjects or exam.categories:
        table.add_row(name.replace("[", r"\["), "", "", "")
    for subject, score in subjects.items():
        _add_score(table, f"  {subject}", score, "")
    for category, score in exam.categories.items():
        _add_score(table, f"  {category} (category)", score, "")
    style = "chat" if exam.chat_template else "text"
    what = f", {exam.protocol}, {exam.num_fewshot}-shot as {style}; {exam.verdict}"
    if exam.cut_prompts:
        what += f"; {exam.cut_prompts} prompts cut to the context"
    what += "".join(f"; {note}" for note in (exam.note, exam.contamination.note) if note)
    _add_score(table, f"{name} {_named(exam.metric)}", exam.overall, what)
    if exam.contamination.contaminated and (clean := exam.contamination.clean):
        _add_score(table, f"{name} {_named(exam.metric)} without contaminated questions", clean, "")


def _named(metric: str) -> str:
    return {"acc": "accuracy", "acc_norm": "accuracy (by log p of a character)"}.get(metric, metric)


def add_measurement(table: Table, measurement: Measurement, name: str = "") -> None:
    """The row of a measurement, in the columns of `results_table`; `name` where it is shown by another."""
    name = (name or measurement.name).replace("[", r"\[")
    if not measurement.items:
        table.add_row(name, "", "", measurement.note)
        return
    shown = "{:.1%}" if measurement.unit == "share" else "{:.4g}"
    interval = ""
    if measurement.interval:
        interval = " to ".join(shown.format(bound) for bound in measurement.interval)
    of = counted(measurement.items, "item")
    if measurement.unit != "share":
        of = f"{measurement.unit}, {of}"
    if measurement.chance is not None:
        of += f"; chance {shown.format(measurement.chance)}"
        of += "" if measurement.above_chance else ", not above chance"
    of += f"; {measurement.note}" if measurement.note else ""
    value = shown.format(measurement.value)
    table.add_row(name, value, interval, of)


def counted(number: int, noun: str) -> str:
    """1 item, 2 items."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _add_score(table: Table, name: str, score: Score, more: str) -> None:
    low, high = score.interval
    table.add_row(
        name.replace("[", r"\["),
        f"{score.accuracy:.1%}",
        f"{low:.1%} to {high:.1%}",
        counted(score.questions, "question") + more,
    )

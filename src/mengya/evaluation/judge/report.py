"""A judgement for people: a table in the terminal, the same as Markdown, and sentences that explain it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mengya.evaluation.judge.figures import Judgement
from mengya.evaluation.judge.outcome import Outcome
from mengya.evaluation.results import add_measurement

_SURE = 0.05  # p below which the sides differ
_WORDS = {
    "empty": "empty", "cut": "cut by max_tokens", "refused": "refused by the endpoint",
    "rejected": "rejected by the endpoint", "no_verdict": "no verdict in the form that was asked for",
    "several_verdicts": "verdicts that contradict one another", "no_reply": "no reply",
}  # fmt: skip


def judge_table(found: Judgement, title: str) -> Table:
    """One row a measurement."""
    table = Table(title=title.replace("[", r"\["), title_justify="left")
    table.add_column("measure", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("of", overflow="fold")
    for measurement in found.measurements:
        add_measurement(table, measurement)
    return table


def sentences(found: Judgement, first: str, second: str, cut_answers: int) -> list[str]:
    """What was counted, what it means, and what to know before it is believed."""
    lines = [
        f"{found.questions:,} questions: {first} wins {found.wins:,}, {second} wins {found.losses:,}, "
        f"{found.ties:,} ties ({found.inconsistent:,} because the judge contradicts itself when the order "
        f"is swapped, {found.identical:,} of identical answers, not judged)"
    ]
    if found.p is None:
        lines.append("no pair has a verdict, so nothing is known of the sides")
    elif found.p < _SURE:
        better = first if found.measurements[0].value > 0.5 else second  # the win rate
        lines.append(f"{better} is better in the eyes of this judge (p = {found.p:.3f})")
    else:
        lines.append(f"a difference between the two is not shown (p = {found.p:.3f})")
    if found.undecided:
        lines.append(f"{found.undecided:,} questions have no verdict and count for neither side")
    if found.bad:
        reasons = ", ".join(f"{count:,} {_WORDS[reason]}" for reason, count in found.bad.items())
        lines.append(f"replies without a verdict: {reasons}")
    agreement = next((m for m in found.measurements if m.name == "judge/agreement"), None)
    if agreement is not None and agreement.interval and agreement.interval[0] < 0.5:
        lines.append(
            f"the judge agrees with itself on {agreement.value:.0%} of questions only: take a stronger "
            "model as the judge before these figures are believed"
        )
    if cut_answers:
        lines.append(f"{cut_answers:,} answers were cut to max_answer_characters for the judge")
    return lines


def markdown(
    found: Judgement, outcomes: Sequence[Outcome], title: str, lines: Sequence[str]
) -> str:
    """The table, the sentences, and the questions on which the judge contradicts itself."""
    rows = ["| measure | value | 95 % interval | items | note |", "|---|---:|---:|---:|---|"]
    for m in found.measurements:
        interval = "{:.1%} to {:.1%}".format(*m.interval) if m.interval else ""
        note = m.note.replace("|", r"\|")
        rows.append(f"| {m.name} | {m.value:.1%} | {interval} | {m.items} | {note} |")
    unsure = [o.pair.question.id for o in outcomes if o.agrees is False]
    more = [f"- contradictions: {', '.join(unsure)}"] if unsure else []
    return "\n".join([f"# {title}", "", *(f"- {line}" for line in lines), *more, "", *rows, ""])

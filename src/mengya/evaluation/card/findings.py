"""What each stage gained and what it forgot, in sentences.

Takes stages and the changes of their figures; says only what is beyond noise, names forgetting where it
happened, and what was seen to help among these stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mengya.evaluation.card.compare import Change
from mengya.evaluation.card.render.numbers import shown_change, shown_p
from mengya.evaluation.card.render.words import Language, figure_name, joined, kind_name, say
from mengya.evaluation.card.stage import Stage
from mengya.measured.shown import shown

Kind = Literal["gained", "forgot", "kept", "note"]
Changes = Mapping[str, Change | None]
# Text by which forgetting is judged.
GENERAL = ("reference_text", "bits_per_char", "text/bits_per_char")
_SAME = 0.005  # bits per character: domains that lost as much as one another are not named
_LISTED = 8  # figures in one sentence


@dataclass(frozen=True)
class Finding:
    """A sentence about a stage."""

    stage: int
    kind: Kind
    text: Mapping[Language, str]

    def to_json(self) -> dict[str, Any]:
        return {"stage": self.stage, "kind": self.kind, **self.text}


def find(
    stages: Sequence[Stage], changes: Sequence[Changes], headline: Sequence[str]
) -> list[Finding]:
    """The sentences, stage by stage.

    Args:
        changes: of each stage, by figure; a figure that cannot be compared is None.
        headline: the figures that may be named.
    """
    found: list[Finding] = []
    for number, stage in enumerate(stages):
        before = stage.place.before
        if before is not None:
            own = list(_of_change(number, stages, changes, headline))
            key = "nothing" if any(changes[number].values()) else "not_compared_stage"
            found += own or [Finding(number, "kept", say(key, stage=_name(stage)))]
        found += _of_exams(number, stage)
    return found


def _of_change(
    number: int, stages: Sequence[Stage], changes: Sequence[Changes], headline: Sequence[str]
) -> Iterator[Finding]:
    stage, own = stages[number], changes[number]
    before = stages[stage.place.before or 0]
    for general in GENERAL:
        if own.get(general):
            yield from _of_text(number, stages, changes, general)
    forgot = [n for n in GENERAL if (c := own.get(n)) and c.verdict == "worse"]
    if forgot and stage.replay is not None:
        key = "replay_share" if stage.replay > 0 else "replay_none"
        yield Finding(number, "note", say(key, share=f"{stage.replay:.1%}"))
    for how in ("greedy", "sampled"):
        if (change := own.get(f"loops/{how}")) and change.verdict in ("better", "worse"):
            fields = _before_after(before, stage, f"loops/{how}", change)
            text = say(
                "loops_more" if change.mean > 0 else "loops_less",
                how=_last(f"loops/{how}"),
                **fields,
            )
            yield Finding(number, "forgot" if change.mean > 0 else "gained", text)
    measured = {name.split("/")[0] for name in stage.figures}
    said = {*GENERAL, "loops/greedy", "loops/sampled"}
    verdicts: tuple[tuple[str, str, Kind], ...] = (
        ("better", "gained", "gained"),
        ("worse", "lost", "forgot"),
    )
    for verdict, key, kind in verdicts:
        names = [
            n for n in headline if n not in said and (c := own.get(n)) and c.verdict == verdict
        ]
        if names:
            listed = [_with_change(stage, name, own[name]) for name in names[:_LISTED]]
            yield Finding(number, kind, say(key, list=joined(listed)))
    lacking = [n for n in headline if n in before.figures and n.split("/")[0] not in measured]
    if lacking and stage.figures:
        names = joined([figure_name(name) for name in lacking[:_LISTED]])
        yield Finding(number, "note", say("not_all_measured", stage=_name(stage), list=names))


def _of_text(
    number: int, stages: Sequence[Stage], changes: Sequence[Changes], general: str
) -> Iterator[Finding]:
    stage, own = stages[number], changes[number]
    before = stages[stage.place.before or 0]
    change = own[general]
    assert change is not None  # the caller has seen it
    fields = _before_after(before, stage, general, change)
    key, kind = _verdict_on_text(change)
    yield Finding(number, kind, say(key, stage=_name(stage), **fields))
    domains = sorted(
        (c.mean, n) for n, c in own.items()
        if c and n.startswith(f"{general}/") and "bits_per_byte" not in n
    )  # fmt: skip
    if key != "text_cost":
        return
    if len(domains) > 1 and domains[-1][0] - domains[0][0] > _SAME:
        (least, least_name), (worst, worst_name) = domains[0], domains[-1]
        yield Finding(
            number,
            "forgot",
            say(
                "domains",
                worst=_last(worst_name),
                worst_change=f"{worst:.2f}",
                least=_last(least_name),
                least_change=shown_change(least, "bits/char"),
            ),
        )
    yield from _of_replay(number, stages, changes, general)


def _of_replay(
    number: int, stages: Sequence[Stage], changes: Sequence[Changes], general: str
) -> Iterator[Finding]:
    """Another stage from the same start, with more replay, that forgot less."""
    stage, own = stages[number], changes[number][general]
    for other_number, other in enumerate(stages):
        theirs = changes[other_number].get(general)
        comparable = (
            own and theirs and other_number != number and other.place.before == stage.place.before
        )
        if not comparable or other.replay is None or stage.replay is None:
            continue
        assert own is not None and theirs is not None
        if other.replay > stage.replay and theirs.mean < own.mean:
            yield Finding(
                number,
                "note",
                say(
                    "replay_helped",
                    stage=other.place.name,
                    share=f"{other.replay:.1%}",
                    other=stage.place.name,
                    other_share=f"{stage.replay:.1%}",
                    before=stages[stage.place.before or 0].place.name,
                    saved=f"{own.mean - theirs.mean:.3f}",
                    text=figure_name(general.removesuffix("/bits_per_char")),
                ),
            )


def _of_exams(number: int, stage: Stage) -> Iterator[Finding]:
    for name, figure in stage.figures.items():
        measurement = figure.measurement
        if not name.startswith("exam/") or name.count("/") != 1 or measurement.items == 0:
            continue
        value, exam = shown(measurement.value, "share"), figure_name(name)
        if measurement.above_chance is False:
            chance = shown(measurement.chance or 0.0, "share")
            yield Finding(number, "note", say("exam_chance", exam=exam, value=value, chance=chance))
        clean = stage.figures.get(f"{name}/not_contaminated")
        if clean is not None:
            shown_clean = shown(clean.measurement.value, "share")
            text = say("exam_contaminated", exam=exam, value=value, clean=shown_clean)
            yield Finding(number, "note", text)


def _verdict_on_text(change: Change) -> tuple[str, Kind]:
    if change.verdict == "same":
        return "text_same", "kept"
    return ("text_cost", "forgot") if change.mean > 0 else ("text_gain", "gained")


def _before_after(
    before: Stage, stage: Stage, name: str, change: Change
) -> dict[str, str | Mapping[Language, str]]:
    first, second = before.figures[name].measurement, stage.figures[name].measurement
    return {
        "change": shown(abs(change.mean), first.unit),
        "text": figure_name(name.removesuffix("/bits_per_char")),
        "before": shown(first.value, first.unit),
        "after": shown(second.value, second.unit),
        "p": shown_p(change.p) or "–",
    }


def _with_change(stage: Stage, name: str, change: Change | None) -> dict[Language, str]:
    assert change is not None  # it has a verdict
    text = shown_change(change.mean, stage.figures[name].measurement.unit)
    return {language: f"{word} {text}" for language, word in figure_name(name).items()}


def _last(name: str) -> dict[Language, str]:
    return {language: text.split(" · ")[-1] for language, text in figure_name(name).items()}


def _name(stage: Stage) -> dict[Language, str]:
    """The kind in words and the name, which may be anything."""
    kind = kind_name(stage.place.kind)
    return {
        language: f"{word}（{stage.place.name}）"
        if language == "zh"
        else f"{word} ({stage.place.name})"
        for language, word in kind.items()
    }

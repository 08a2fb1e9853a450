"""What a run takes of every source, before it starts: shares, epochs, phases; for people and for lint.

Takes the plan and the mixture made by it. Of a run that has begun, metrics say what was taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mengya.data.rows.mixing.config import MixtureConfig
from mengya.data.rows.mixing.plan import MixturePlan, RunLength
from mengya.data.rows.mixture import Mixture


@dataclass(frozen=True)
class SourceUse:
    """One source in a run. share: of the run's rows; wanted: the same without max_epochs."""

    name: str
    rows: int
    share: float
    wanted: float
    epochs: float
    max_epochs: float | None


@dataclass(frozen=True)
class PhaseUse:
    """Steps [start, end) with the share of every source in their rows; none where the phase never comes.

    wanted: the shares that were asked for. They are held on average over a thousand rows: a few rows of a
    shuffled order have others, which `shares` are.
    """

    start: int
    end: int
    shares: tuple[float, ...]
    wanted: tuple[float, ...] = ()
    rows: int = 0


@dataclass(frozen=True)
class MixtureUse:
    """All sources and phases of a run; one phase where the settings have none."""

    sources: tuple[SourceUse, ...] = ()
    phases: tuple[PhaseUse, ...] = ()
    rows: int = 0
    """That the run takes of all sources."""

    def lines(self) -> Iterator[str]:
        """For people; nothing for a single source."""
        if len(self.sources) < 2:
            return
        names = [source.name for source in self.sources]
        said = (f"{s.name} {s.share:.1%} ({s.epochs:.2f} epochs)" for s in self.sources)
        yield f"sources: {', '.join(said)}"
        for phase in self.phases if len(self.phases) > 1 else ():
            if phase.shares:
                yield f"steps {phase.start + 1:,} to {phase.end:,}: {shares_said(names, phase.shares)}"


def shares_said(names: Sequence[str], shares: Sequence[float]) -> str:
    """`web 95.0%, books 5.0%`; sources without a share are left out."""
    said = (f"{name} {share:.1%}" for name, share in zip(names, shares, strict=True) if share)
    return ", ".join(said)


def mixture_use(
    config: MixtureConfig, plan: MixturePlan, mixture: Mixture, length: RunLength
) -> MixtureUse:
    """The rows that a run takes."""
    phases, wanted = [], [0.0] * len(mixture.sources)
    for phase in plan.phases:
        start, end = (length.batch_size.first_row(step) for step in (phase.start, phase.end))
        rows = mixture.rows_before(end) - mixture.rows_before(start)
        shares = tuple((rows / (end - start)).tolist()) if end > start else ()
        phases.append(PhaseUse(phase.start, phase.end, shares, phase.wanted, end - start))
        wanted = [
            w + (end - start) * s / length.rows for w, s in zip(wanted, phase.wanted, strict=True)
        ]
    taken = mixture.rows_before(length.rows).tolist()
    sources = tuple(
        SourceUse(name, len(rows), used / length.rows, asked, used / len(rows), source.max_epochs)
        for name, rows, used, asked, source in zip(
            config.names, mixture.sources, taken, wanted, config.train, strict=True
        )
    )
    return MixtureUse(sources, tuple(phases), length.rows)

"""How many rows of every source each phase of a run has: weights, temperature and caps made into integers.

Takes the settings, the rows of the sources and the length of the run; gives a `MixturePlan`, which with a
seed decides every row (sequences.py). Plain integer and float arithmetic: the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.mixing.config import DECAY, MixtureConfig, Phase
from mengya.data.rows.mixing.sequences import Segment, block_counts, even_counts
from mengya.errors import UserError, shown

_DIGITS = 6  # of weights that temperature makes: their last bits are the mathematical library's


@dataclass(frozen=True)
class RunLength:
    """How long a run is. decay: the first step at which the learning rate falls, where there is one."""

    max_steps: int
    batch_size: BatchSize
    decay: int | None = None

    @property
    def rows(self) -> int:
        return self.batch_size.first_row(self.max_steps)


@dataclass(frozen=True)
class PlannedPhase:
    """A phase as steps [start, end), and what was asked of it: the share of every source."""

    start: int
    end: int
    wanted: tuple[float, ...]


@dataclass(frozen=True)
class MixturePlan:
    """The mixture of one run.

    Attributes:
        weights: of the sources, None by None where there are none. They decide where there are no segments.
        segments: the shares of every phase that comes, or the exact rows where a cap binds; where there
            are neither phases nor such a cap nor an order without weights, none are needed.
        phases: all of them, for people; one where the settings have none.
    """

    weights: tuple[float | None, ...]
    segments: tuple[Segment, ...]
    phases: tuple[PlannedPhase, ...]

    def same_until(self, other: MixturePlan, row: int) -> bool:
        """Whether both decide the same for all rows before `row`."""
        if not row or (self.weights, self.segments) == (other.weights, other.segments):
            return True
        begun = [[s for s in plan.segments if s.start < row] for plan in (self, other)]
        return bool(begun[0]) and begun[0] == begun[1]


def plan_mixture(config: MixtureConfig, lengths: Sequence[int], length: RunLength) -> MixturePlan:
    """The plan of a run over sources with `lengths` rows.

    Raises:
        UserError: phases that are not one after the other, or caps that leave too few rows.
    """
    weights = _base_weights(config, lengths)
    counts = block_counts(weights)
    ends = _phase_ends(config.phases, length)
    starts = [0, *ends[:-1]]
    by_phase = [_weights_of(phase, config, lengths, weights) for phase in config.phases]
    by_phase = by_phase or [_or_rows(weights, lengths)]
    phases = tuple(
        PlannedPhase(start, end, tuple(w / math.fsum(each) for w in each))
        for start, end, each in zip(starts, ends, by_phase, strict=True)
    )
    budgets = _budgets(config, lengths, length)
    if config.phases:
        segments = tuple(
            Segment(length.batch_size.first_row(phase.start), even_counts(phase.wanted))
            for phase in phases
            if phase.end > phase.start
        )
        most = _most(segments, length.rows)
    else:
        each = lengths if counts is None else counts.tolist()
        ordered = counts is None and any(source.order != "shuffled" for source in config.train)
        segments = (Segment(0, tuple(lengths)),) if ordered else ()
        epochs, rest = divmod(length.rows, sum(each))
        most = [epochs * count + min(count, rest) for count in each]
    if any(taken > budget for taken, budget in zip(most, budgets, strict=True)):
        segments = _capped(config, phases, budgets, length)
    return MixturePlan(weights, segments, phases)


def _base_weights(config: MixtureConfig, lengths: Sequence[int]) -> tuple[float | None, ...]:
    if config.temperature is not None:
        return tuple(_tempered(lengths, config.temperature))
    return tuple(source.weight for source in config.train)


def _tempered(lengths: Sequence[int], temperature: float) -> Iterator[float]:
    largest = max(lengths)
    for rows in lengths:
        share = (rows / largest) ** (1 / temperature)
        yield max(round(share, _DIGITS), 10.0**-_DIGITS)


def _or_rows(weights: Sequence[float | None], lengths: Sequence[int]) -> list[float]:
    return [
        float(rows) if weight is None else weight
        for weight, rows in zip(weights, lengths, strict=True)
    ]


def _weights_of(
    phase: Phase, config: MixtureConfig, lengths: Sequence[int], base: Sequence[float | None]
) -> list[float]:
    if phase.temperature is not None:
        return list(_tempered(lengths, phase.temperature))
    if phase.weights is not None:
        return [phase.weights.get(name, 0.0) for name in config.names]
    return _or_rows(base, lengths)


def _phase_ends(phases: Sequence[Phase], length: RunLength) -> list[int]:
    """The step at which each phase ends, at most the last of the run; a later one begins there."""
    ends: list[int] = []
    for number, phase in enumerate(phases):
        end = _step(phase.until, length)
        if number == len(phases) - 1:
            end = max([end, *ends])  # the run's, and of a phase that never comes the same
        if ends and end < ends[-1]:
            start = ends[-2] if len(ends) > 1 else 0
            raise UserError(
                f"data.phases[{number}].until {shown(phase.until)} is step {end:,} of {length.max_steps:,}, "
                f"before step {ends[-1]:,}, where data.phases[{number - 1}] ends; write "
                f"data.phases[{number - 1}].until={_as_until((start + end) // 2, length)}, or swap them"
            )
        ends.append(end)
    return [min(end, length.max_steps) for end in ends] or [length.max_steps]


def _step(until: float | str | None, length: RunLength) -> int:
    if until is None:
        return length.max_steps
    if until == DECAY:
        assert length.decay is not None  # RunConfig refuses it for other schedules
        return length.decay
    until = float(until)
    return round(until * length.max_steps) if until <= 1 else round(until)


def _as_until(step: int, length: RunLength) -> str:
    """A step as a value of `until`, where 1 and less are shares of the run."""
    return str(step) if step > 1 else f"{max(1, step) / length.max_steps:.3g}"


def _budgets(config: MixtureConfig, lengths: Sequence[int], length: RunLength) -> list[int]:
    """Rows of each source that the run may take, all of it without a cap.

    Where all caps together lack less than the last step's rows, as the last step is a full one, they are
    raised by these rows.
    """
    budgets = [
        length.rows if source.max_epochs is None else int(source.max_epochs * rows)
        for source, rows in zip(config.train, lengths, strict=True)
    ]
    missing = length.rows - sum(budgets)
    last = length.batch_size.at(max(0, length.max_steps - 1))
    if 0 < missing < last:
        budgets = [b + math.ceil(missing * b / sum(budgets)) for b in budgets]
    return budgets


def _most(segments: Sequence[Segment], rows: int) -> list[int]:
    """Rows of each source that a run of `rows` takes at most, whatever the seed."""
    taken = [0] * len(segments[0].counts)
    ends = [*(segment.start for segment in segments[1:]), rows]
    for segment, end in zip(segments, ends, strict=True):
        most = segment.most(end - segment.start)
        taken = [t + min(m, end - segment.start) for t, m in zip(taken, most, strict=True)]
    return taken


def _capped(
    config: MixtureConfig,
    phases: Sequence[PlannedPhase],
    budgets: Sequence[int],
    length: RunLength,
) -> tuple[Segment, ...]:
    """The phases with exactly the rows that caps leave every source."""
    found = _counts(phases, budgets, length)
    if isinstance(found, _TooFew):
        raise UserError(_too_few(config, phases, found, budgets, length))
    return tuple(Segment(start, counts) for start, counts in reversed(found))


class _TooFew(NamedTuple):
    """The phase that caps leave too few rows, how many it takes and how many there are."""

    phase: int
    rows: int
    left: int


def _counts(
    phases: Sequence[PlannedPhase], budgets: Sequence[int], length: RunLength
) -> list[tuple[int, tuple[int, ...]]] | _TooFew:
    """(first row, rows of every source) of the phases that come, the last one first.

    It also takes first of what caps leave: an annealing mix is what the rest of the run leads to.
    """
    left, found = list(budgets), []
    for number in reversed(range(len(phases))):
        phase = phases[number]
        start, end = (length.batch_size.first_row(step) for step in (phase.start, phase.end))
        if end == start:
            continue
        counts = _fill(end - start, phase.wanted, left)
        if counts is None:
            have = sum(rows for rows, share in zip(left, phase.wanted, strict=True) if share)
            return _TooFew(number, end - start, have)
        left = [have - count for have, count in zip(left, counts, strict=True)]
        found.append((start, tuple(counts)))
    return found


def _fill(rows: int, shares: Sequence[float], budgets: Sequence[int]) -> list[int] | None:
    """Rows of every source in proportion to its share, none above its budget; None: they do not suffice."""
    counts = [0] * len(shares)
    open_sources = [i for i, share in enumerate(shares) if share > 0]
    while True:
        total = math.fsum(shares[i] for i in open_sources)
        if not open_sources:
            return None if rows else counts
        quotas = {i: rows * shares[i] / total for i in open_sources}
        full = [i for i in open_sources if quotas[i] > budgets[i]]
        if not full:
            break
        for i in full:
            counts[i] = budgets[i]
            rows -= budgets[i]
        open_sources = [i for i in open_sources if i not in full]
    for i in open_sources:
        counts[i] = math.floor(quotas[i])
    short = rows - sum(counts[i] for i in open_sources)
    for i in sorted(open_sources, key=lambda i: (counts[i] - quotas[i], i))[:short]:
        counts[i] += 1
    return counts


def _too_few(
    config: MixtureConfig,
    phases: Sequence[PlannedPhase],
    found: _TooFew,
    budgets: Sequence[int],
    length: RunLength,
) -> str:
    """What is wrong, and caps that are enough."""
    phase = phases[found.phase]
    where = f"data.phases[{found.phase}] (steps {phase.start + 1:,} to {phase.end:,})"
    sources = ", ".join(
        name for name, share in zip(config.names, phase.wanted, strict=True) if share
    )
    after = ", later phases having theirs" if found.phase < len(phases) - 1 else ""
    factor = 1.0
    while isinstance(_counts(phases, [math.ceil(b * factor) for b in budgets], length), _TooFew):
        factor *= 1.2
    raised = " ".join(
        f"data.train[{i}].max_epochs={math.ceil(source.max_epochs * factor)}"
        for i, source in enumerate(config.train)
        if source.max_epochs is not None
    )
    return (
        f"{where if config.phases else 'the run'} takes {found.rows:,} rows of {sources}, and max_epochs "
        f"leaves {found.left:,}{after}; write {raised}, a shorter run, or another source without max_epochs"
    )

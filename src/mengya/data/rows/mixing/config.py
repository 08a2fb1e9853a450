"""The settings of a mixture: sources, their weights, caps and order, and the phases of a run.

Values and the rules that need no shards; plan.py makes rows of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.functional_validators import AfterValidator

from mengya.config import Config, OneOrMany, PathConfig
from mengya.errors import shown

Order = Literal["shuffled", "short_first", "few_turns_first"]
DECAY = "decay"
_PARTS = ("train", "validation")  # of one source: `prepare` names its folders so


def _readable(name: str) -> str:
    if not name.strip() or any(c in "/<>&\"'" or not c.isprintable() for c in name):
        raise ValueError("is a label of metrics and reports: write one without / < > & and quotes")
    return name


def _point(value: float) -> float:
    if value > 1 and not float(value).is_integer():
        raise ValueError(
            "is neither a share of the run (0.6) nor a number of steps (3000); write one of them"
        )
    return value


def _weight(value: float) -> float:
    if value > 0 and not 1e-9 <= value <= 1e9:
        raise ValueError("cannot be compared with others; write one from 1e-9 to 1e9")
    return value


Weight = Annotated[float, AfterValidator(_weight)]


class Source(PathConfig):
    path: Path
    """A shard folder written by `mengya prepare`."""
    weight: Weight | None = Field(default=None, gt=0)
    """Share of this source in every step; without weights each row comes once an epoch."""
    name: Annotated[str, AfterValidator(_readable)] | None = None
    """What phases, metrics and reports call it; null: the folder's name (of chat/train: chat)."""
    max_epochs: float | None = Field(default=None, gt=0)
    """Passes over this source at most; what its weight would take beyond goes to the other sources in
    proportion to their weights."""
    order: Order = "shuffled"
    """Of the rows in its first pass, in ten steps: short_first by the length of their documents,
    few_turns_first by the answers of their conversations; later passes are shuffled."""


class Phase(Config):
    until: Annotated[float, Field(gt=0), AfterValidator(_point)] | Literal["decay"] | None = None
    """Where the phase ends: a share of the run's steps (0.6), a step (3000), or decay: where the rate of
    schedule.name=wsd begins to fall. null: with the run, for the last phase."""
    weights: dict[str, Annotated[Weight, Field(ge=0)]] | None = None
    """Share of each source by name; those not named take no part. null: the weights of data.train."""
    temperature: float | None = Field(default=None, gt=0)
    """Instead of weights: as data.temperature."""


class MixtureConfig(Config):
    train: OneOrMany[Source] = Field(min_length=1)
    """Shards to train on; a plain path stands for {path: ...}."""
    temperature: float | None = Field(default=None, gt=0)
    """Instead of weights: shares in proportion to rows^(1/temperature); 1 by size, 5 nearly even."""
    phases: list[Phase] = []
    """Other weights in other parts of the run, one after the other (docs/mixtures.md)."""

    @property
    def names(self) -> list[str]:
        """Of the sources of `train`, each another."""
        return source_names(self.train)

    @model_validator(mode="after")
    def _what_fits_together(self) -> MixtureConfig:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        given = [source.name for source in self.train if source.name is not None]
        if twice := sorted({name for name in given if given.count(name) > 1}):
            yield f"two sources of train are named {', '.join(twice)}; give each a name of its own"
        weighted = any(source.weight is not None for source in self.train)
        if weighted and self.temperature is not None:
            yield (
                "temperature computes the weights that train gives as well; leave out the weights, or write "
                "temperature=null"
            )
        own = [phase.weights is not None or phase.temperature is not None for phase in self.phases]
        if own and all(own) and (weighted or self.temperature is not None):
            what = "the weights of train are" if weighted else "temperature is"
            yield f"{what} used by no phase, as each has its own; leave that out, or those of a phase"
        for number, phase in enumerate(self.phases):
            yield from self._phase_problems(number, phase)
        yield from self._unused(own)

    def _phase_problems(self, number: int, phase: Phase) -> Iterator[str]:
        key, last = f"phases[{number}]", number == len(self.phases) - 1
        if phase.until is None and not last:
            yield f"{key} has no end; write {key}.until=0.5 (a share of the run, a step, or decay)"
        if last and phase.until not in (None, 1):
            yield f"{key}.until {shown(phase.until)}: the last phase ends with the run; leave it out"
        if phase.weights is not None and phase.temperature is not None:
            yield f"{key} has weights and temperature, which say the same thing; keep one of them"
        for name in phase.weights or ():
            if name not in self.names:
                near = difflib.get_close_matches(name, self.names, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                yield (
                    f"{key}.weights: {shown(name)} is no source of train; {hint}known here: "
                    f"{', '.join(self.names)}"
                )
        if phase.weights is not None and not any(phase.weights.values()):
            yield f"{key}.weights has no share above 0; give one source at least a weight"
        if number and not _rises(self.phases[number - 1].until, phase.until):
            before, until = shown(self.phases[number - 1].until), shown(phase.until)
            yield f"{key}.until {until} is not after {before}, where the phase before it ends; swap them"

    def _unused(self, own: Sequence[bool]) -> Iterator[str]:
        phases = self.phases
        if not own or not all(own) or any(phase.weights is None for phase in phases):
            return
        for name in self.names:
            if not any((phase.weights or {}).get(name) for phase in phases):
                yield f"{name} has a weight in no phase; give it one, or leave it out of train"


def source_names(sources: Sequence[Source]) -> list[str]:
    """The names of sources, each another: given ones, else of their folders, numbered where two agree."""
    names = [source.name or _folder_name(source.path) for source in sources]
    taken = {source.name for source in sources if source.name is not None}
    found: list[str] = []
    for number, (source, name) in enumerate(zip(sources, names, strict=True)):
        if source.name is None and (names.count(name) > 1 or name in taken):
            name = f"{name}-{number}"
        found.append(name)
    return found


def _folder_name(path: Path) -> str:
    parts = [part for part in path.parts if part not in (path.anchor, ".", "..")]
    while len(parts) > 1 and parts[-1] in _PARTS:
        parts.pop()
    name = "".join(c for c in (parts[-1] if parts else "") if c.isprintable() and c not in "<>&\"'")
    return name.strip() or "source"


def _rises(before: float | str | None, until: float | str | None) -> bool:
    """Whether two ends of phases can be in this order, as far as numbers of one kind tell."""
    if before == until == DECAY:
        return False
    if not isinstance(before, float | int) or not isinstance(until, float | int):
        return True
    return (before <= 1) != (until <= 1) or before < until

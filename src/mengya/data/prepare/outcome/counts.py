"""What became of the records of a source: numbers and examples, kept as JSON until the build is finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mengya.data.prepare.outcome.encoded_chunk import EncodedChunk
from mengya.data.prepare.outcome.examples import Example, Examples
from mengya.data.prepare.outcome.histograms import Histograms

KEPT = "kept"  # the name of examples of what was kept
_EXAMPLES = ("examples", "edit_examples", "placeholder_examples")
_NUMBERS = ("read", "bad", "cut_turns", "kept_characters")
_COUNTERS = ("dropped", "dropped_characters", "edits", "unused", "placeholders")


@dataclass
class Kept:
    """What one source put into one split; `learnt_tokens` are those that a loss is taken on."""

    samples: int = 0
    documents: int = 0
    tokens: int = 0
    learnt_tokens: int = 0
    characters: int = 0


def add_up(parts: Iterable[Kept]) -> Kept:
    values = [asdict(part) for part in parts]
    return Kept(**{name: sum(value[name] for value in values) for name in asdict(Kept())})


@dataclass
class SourceCounts:
    """What became of the records of one source.

    Attributes:
        kept_characters: as dropped_characters, of all turns of a chat; `Kept.characters` are those learned.
        examples: of what was dropped, by reason, and of what was kept, under `KEPT`.
    """

    read: int = 0
    bad: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    kept: dict[str, Kept] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)
    cut_turns: int = 0
    dropped_characters: Counter[str] = field(default_factory=Counter)
    kept_characters: int = 0
    edits: Counter[str] = field(default_factory=Counter)
    examples: Examples = field(default_factory=Examples)
    edit_examples: Examples = field(default_factory=Examples)
    histograms: Histograms = field(default_factory=Histograms)
    placeholders: Counter[str] = field(default_factory=Counter)
    placeholder_examples: Examples = field(default_factory=Examples)

    @property
    def total(self) -> Kept:
        """Over all splits."""
        return add_up(self.kept.values())

    def add(self, chunk: EncodedChunk) -> None:
        """Count what became of a chunk, but for its kept samples."""
        self.read += chunk.read
        self.bad += len(chunk.bad)
        self.cut_turns += chunk.cut_turns
        for name in _COUNTERS:
            getattr(self, name).update(getattr(chunk, name))
        for name in _EXAMPLES:
            getattr(self, name).update(getattr(chunk, name))

    def drop(self, reason: str, chunk: EncodedChunk, samples: np.ndarray) -> None:
        """Count samples of a chunk (bool [N]) that are left out after they were encoded."""
        if not samples.any():
            return
        self.dropped[reason] += int(samples.sum())
        self.dropped_characters[reason] += int(chunk.text_characters[samples].sum())
        self._show(reason, chunk, samples)

    def keep(self, chunk: EncodedChunk, samples: np.ndarray) -> None:
        """Count the samples of a chunk (bool [N]) that are kept, over all splits."""
        self.kept_characters += int(chunk.text_characters[samples].sum())
        self.histograms.add(chunk, samples)
        self._show(KEPT, chunk, samples)

    def _show(self, name: str, chunk: EncodedChunk, samples: np.ndarray) -> None:
        """Make those with the smallest hashes examples."""
        places = np.flatnonzero(samples)
        smallest = places[np.argsort(chunk.hashes[places], kind="stable")]
        for at in smallest[: self.examples.limit].tolist():
            key = int(chunk.hashes[at])
            example = Example(key, chunk.file, int(chunk.lines[at]), chunk.excerpts[at])
            self.examples.add(name, example)

    def state(self) -> dict[str, Any]:
        """As JSON; `of` reads it back."""
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            "kept": {split: asdict(part) for split, part in self.kept.items()},
            **{name: dict(getattr(self, name)) for name in _COUNTERS},
            **{name: getattr(self, name).state() for name in _EXAMPLES},
            "histograms": self.histograms.state(),
        }

    @staticmethod
    def empty(examples: int) -> SourceCounts:
        """Nothing counted yet; so many examples of everything will be kept."""
        counts = SourceCounts()
        for name in _EXAMPLES:
            setattr(counts, name, Examples(examples))
        return counts

    @staticmethod
    def of(state: dict[str, Any], examples: int) -> SourceCounts:
        counts = SourceCounts(
            kept={split: Kept(**values) for split, values in state["kept"].items()},
            histograms=Histograms.of(state.get("histograms", {})),
        )
        for name in _NUMBERS:
            setattr(counts, name, state.get(name, 0))
        for name in _EXAMPLES:
            setattr(counts, name, Examples.of(state.get(name, {}), examples))
        for name in _COUNTERS:
            setattr(counts, name, Counter(state.get(name, {})))
        return counts

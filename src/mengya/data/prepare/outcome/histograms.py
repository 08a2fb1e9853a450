"""How long the kept samples are, how many turns they have, in which script they are written.

Takes the encoded chunks; gives counts of bins, which add up over chunks and sources.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mengya.data.prepare.outcome.encoded_chunk import EncodedChunk
from mengya.text.scripts import SCRIPTS

MAX_TURNS = 10  # the last bin holds what has more
_CHINESE = [SCRIPTS.index(name) for name in ("han", "simplified", "traditional")]
_SPACE = SCRIPTS.index("space")


@dataclass
class Histograms:
    """Samples by bin.

    Attributes:
        characters, tokens: bin b holds the lengths from 2^b to 2^(b+1) - 1.
        turns: assistant turns of chats.
        chinese: tenths of the characters that are Chinese, white space left out; of a part of the samples.
        scripts: characters by script, of the same part.
    """

    characters: Counter[int] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    chinese: Counter[int] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)

    def add(self, chunk: EncodedChunk, samples: np.ndarray) -> None:
        """Count samples of a chunk (bool [N])."""
        if not samples.any():
            return
        documents = np.repeat(samples, len(chunk.lengths) // len(samples))
        _count(self.characters, _octave(chunk.text_characters[samples]))
        _count(self.tokens, _octave(chunk.lengths[documents]))
        _count(self.turns, np.minimum(chunk.turns[samples], MAX_TURNS))
        counts = chunk.scripts[samples[chunk.script_samples]]
        written = counts.sum(1) - counts[:, _SPACE]
        chinese = counts[:, _CHINESE].sum(1) / np.maximum(written, 1)
        _count(self.chinese, np.minimum(chinese * 10, 9).astype(np.int64))
        totals = zip(SCRIPTS, counts.sum(0).tolist(), strict=True)
        self.scripts.update({name: total for name, total in totals if total})

    def state(self) -> dict[str, list[list[Any]]]:
        """As JSON; `of` reads it back."""
        return {
            name: [list(pair) for pair in counted.items()] for name, counted in vars(self).items()
        }

    @staticmethod
    def of(state: dict[str, list[list[Any]]]) -> Histograms:
        return Histograms(**{n: Counter({k: v for k, v in pairs}) for n, pairs in state.items()})


def add_histograms(parts: Iterable[Histograms]) -> Histograms:
    total = Histograms()
    for part in parts:
        for name, counted in vars(total).items():
            counted.update(getattr(part, name))
    return total


def _octave(values: np.ndarray) -> np.ndarray:
    """[N] int64, floor(log2) of values, which are exact below 2^53."""
    return np.frexp(np.maximum(values, 1))[1].astype(np.int64) - 1


def _count(into: Counter[int], bins: np.ndarray) -> None:
    values, counts = np.unique(bins, return_counts=True)
    into.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

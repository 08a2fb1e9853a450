"""What is in a shard folder, in numbers: lengths, answers, duplicates, sources.

Takes `TokenShards`; reads every token once. Knows nothing of text and tokenizers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mengya.data.shards import TokenShards

_BLOCK = 1000  # samples between two calls of `advance`


@dataclass(frozen=True)
class Source:
    """share: of all tokens. dropped: samples left out, by reason."""

    name: str
    documents: int
    tokens: int
    share: float
    license: str | None
    dropped: dict[str, int]


@dataclass(frozen=True)
class Inspection:
    """Numbers of a folder.

    Attributes:
        samples: documents, conversations, or pairs.
        lengths: [documents] int64, tokens of each; two for a pair.
        answers: [documents] int64, runs of tokens that a loss is taken on; nothing for text.
        learned: share of the tokens that a loss is taken on.
        duplicates: samples whose tokens are those of an earlier one.
    """

    kind: str
    samples: int
    tokens: int
    lengths: np.ndarray
    answers: np.ndarray
    learned: float
    duplicates: int
    sources: list[Source]

    @property
    def duplicate_share(self) -> float:
        """Of the samples."""
        return self.duplicates / max(1, self.samples)


def inspect_shards(
    shards: TokenShards, advance: Callable[[int], object] = lambda samples: None
) -> Inspection:
    """Count; `advance` is called with how many samples are read since its last call."""
    sides = 2 if shards.kind == "preference" else 1
    samples = len(shards) // sides
    seen: set[bytes] = set()
    answers, learned = [], 0
    for sample in range(samples):
        digest = hashlib.blake2b(digest_size=8)
        for document in range(sides * sample, sides * (sample + 1)):
            digest.update(shards.tokens(document).tobytes() + b"|")
            if shards.kind != "text":
                mask = shards.loss_mask(document)
                answers.append(_runs(mask))
                learned += int(mask.sum(dtype=np.int64))
        seen.add(digest.digest())
        if (sample + 1) % _BLOCK == 0:
            advance(_BLOCK)
    advance(samples % _BLOCK)
    tokens = int(shards.lengths.sum())
    return Inspection(
        kind=shards.kind,
        samples=samples,
        tokens=tokens,
        lengths=shards.lengths,
        answers=np.array(answers, np.int64),
        learned=learned / max(1, tokens) if shards.kind != "text" else 1.0,
        duplicates=samples - len(seen),
        sources=_sources(shards.manifest, tokens),
    )


def histogram(values: np.ndarray, powers: bool) -> list[tuple[str, int]]:
    """(range, how many) of integers: between powers of two, or each number and all from ten on."""
    if not len(values):
        return []
    if powers:
        bins = np.log2(np.maximum(values, 1)).astype(np.int64)
        first, last = int(bins.min()), int(bins.max())
        names = [f"{1 << b:,} to {(2 << b) - 1:,}" if b else "1" for b in range(first, last + 1)]
    else:
        bins = np.minimum(values, 10)
        first, last = int(bins.min()), int(bins.max())
        names = [str(b) if b < 10 else "10 and more" for b in range(first, last + 1)]
    return list(zip(names, np.bincount(bins - first).tolist(), strict=True))


def source_of(manifest: dict[str, Any], document: int) -> dict[str, Any] | None:
    """The source of the manifest that a document is of: one source is written after the other."""
    sources = manifest.get("sources", [])
    ends = np.cumsum([source["documents"] for source in sources])
    place = int(np.searchsorted(ends, document, side="right"))
    return sources[place] if place < len(sources) else None


def _runs(mask: np.ndarray) -> int:
    return int(mask[:1].sum()) + int((mask[1:] > mask[:-1]).sum())


def _sources(manifest: dict[str, Any], tokens: int) -> list[Source]:
    return [
        Source(
            str(source.get("name")),
            source["documents"],
            source.get("tokens", 0),
            source.get("tokens", 0) / max(1, tokens),
            source.get("license"),
            dict(source.get("dropped", {})),
        )
        for source in manifest.get("sources", [])
    ]

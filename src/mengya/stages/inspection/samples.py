"""Documents of shards as a person reads them: text cut where what is learned begins and ends, and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mengya.data.inspection import source_of
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.tokenizer.load import load_tokenizer, tokenizer_hash
from mengya.tokenizer.token_text import TokenText


@dataclass(frozen=True)
class Segment:
    """Neighbouring tokens of one kind. learned: a loss is taken on them. control: special tokens."""

    text: str
    learned: bool
    control: bool


@dataclass(frozen=True)
class Token:
    """One token: its id, what a loss compares with it (-100: nothing), and what it writes."""

    id: int
    label: int
    text: str


@dataclass(frozen=True)
class Sample:
    """A document, or a side of a pair.

    Attributes:
        title: where it is from.
        length: tokens of all of it; `segments` and `tokens` have the first.
    """

    title: str
    length: int
    learned: int
    segments: list[Segment]
    tokens: list[Token]


def sides_of(shards: TokenShards) -> int:
    """Documents of a sample."""
    return 2 if shards.kind == "preference" else 1


class SampleReader:
    """Makes samples of ids with one tokenizer."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        self._folder, self._limit = folder, max_tokens
        self._tokens = TokenText(load_tokenizer(folder))

    def check(self, shards: TokenShards) -> None:
        """Refuse shards of another tokenizer."""
        made, found = (
            shards.manifest.get("tokenizer", {}).get("sha256"),
            tokenizer_hash(self._folder),
        )
        if made is not None and made != found:
            raise UserError(
                f"{shards.directory} was made with the tokenizer {made[:12]}, {self._folder} is "
                f"{found[:12]}; name the folder that `mengya prepare` had"
            )

    def samples(self, shards: TokenShards, number: int) -> Iterator[Sample]:
        """The sides of sample `number`."""
        for side in range(sides_of(shards)):
            yield self.document(shards, sides_of(shards) * number + side)

    def document(self, shards: TokenShards, document: int) -> Sample:
        """Document number `document`, of pairs one side; UserError where an id is outside the vocabulary."""
        limit = self._limit
        shards.check_ids(document, 0, limit)
        ids = shards.tokens(document, 0, limit).tolist()
        mask = shards.loss_mask(document, 0, limit).tolist()
        if shards.kind == "text" and mask:
            mask[0] = 0  # nothing comes before it
        source = source_of(shards.manifest, document)
        of = "" if source is None else f", from {source['name']}"
        name = {"text": "document", "conversation": "conversation"}.get(shards.kind)
        if name is None:
            name = f"{('chosen', 'rejected')[document % 2]} side of pair"
        number = document // sides_of(shards)
        return Sample(
            title=f"{name} {number} of {shards.directory}{of}",
            length=int(shards.lengths[document]),
            learned=int(shards.loss_mask(document).sum(dtype=np.int64)) - (shards.kind == "text"),
            segments=list(self._segments(ids, mask)),
            tokens=[
                Token(i, i if learned else -100, self._tokens.named(i))
                for i, learned in zip(ids, mask, strict=True)
            ],
        )

    def _segments(self, ids: list[int], mask: list[int]) -> Iterator[Segment]:
        kinds = [(bool(m), self._tokens.is_added(i)) for i, m in zip(ids, mask, strict=True)]
        start = 0
        for end in range(1, len(ids) + 1):
            if end == len(ids) or kinds[end] != kinds[start]:
                raw = b"".join(map(self._tokens.bytes, ids[start:end]))
                # Where the sample is cut off, so may be its last character.
                cut = end == self._limit and end == len(ids)
                text = raw.decode(errors="replace")
                yield Segment(text.rstrip("\ufffd") if cut else text, *kinds[start])
                start = end

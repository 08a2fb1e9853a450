"""The text that nats per token are measured on, and the sequences of ids that logits are compared on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mengya.errors import UserError
from mengya.world.generate import handwritten

_MAX_CHARACTERS = 4000
_WINDOW = 512


@dataclass(frozen=True)
class HeldOut:
    """Documents, and what to call them.

    Attributes:
        name: for parity.json and the model card.
    """

    name: str
    texts: tuple[str, ...]

    @property
    def characters(self) -> int:
        return sum(map(len, self.texts))

    @property
    def sha256(self) -> str:
        return hashlib.sha256("\0".join(self.texts).encode()).hexdigest()


def own_held_out() -> HeldOut:
    """Fourteen short texts that ship with mengya; none of its training data holds them."""
    texts = (record["text"] for record in handwritten("held_out.jsonl"))
    return HeldOut("mengya.world/held_out.jsonl", tuple(texts))


def first_held_out(
    name: str, texts: Iterable[str], max_characters: int = _MAX_CHARACTERS
) -> HeldOut:
    """The first documents, up to so many characters; the last one is cut.

    Raises:
        UserError: there is no text.
    """
    taken: list[str] = []
    left = max_characters
    for text in texts:
        if left <= 0:
            break
        if text[:left].strip():
            taken.append(text[:left])
            left -= len(text[:left])
    if not taken:
        raise UserError(f"{name}: no text to measure nats per token on; every document is empty")
    return HeldOut(name, tuple(taken))


def windows(ids: Sequence[int], context: int) -> Iterator[list[int]]:
    """Pieces that fit the model; neighbours share a token, so that each is predicted once."""
    length = min(context, _WINDOW)
    for start in range(0, len(ids) - 1, length - 1):
        yield list(ids[start : start + length])

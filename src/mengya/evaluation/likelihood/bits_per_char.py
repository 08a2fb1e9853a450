"""Bits per character of a model on held-out text: how well it predicts, whatever its tokenizer.

    bits per character = sum over all tokens of -log2 p(token | those before) / number of characters

A document is the document token, its text, the document token, as in training, so every character
and the end of the text are predicted, and p is the probability of the full document. Nats per token
cannot be compared between vocabularies; this can, because the cost of a text in bits does not depend
on how it is cut into tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.evaluation.likelihood.held_out import HeldOutText
from mengya.evaluation.likelihood.scoring import sequence_nlls
from mengya.tokenizer.load import document_token_id, encode_texts

GROUP_DOCUMENTS = 256  # encoded and held in memory at a time


@dataclass(frozen=True)
class BitsPerChar:
    """Cross-entropy of held-out text.

    Attributes:
        bits_per_char, bits_per_byte, nats_per_token: averages over all documents.
        documents, characters, bytes, tokens: what they were averaged over.
        window: longest context in tokens that a token was predicted from.
        unknown_tokens: tokens that stand for text outside the vocabulary; with any of them the figures
            are too low and cannot be compared.
    """

    bits_per_char: float
    bits_per_byte: float
    nats_per_token: float
    documents: int
    characters: int
    bytes: int
    tokens: int
    unknown_tokens: int
    window: int


@dataclass(frozen=True)
class DocumentCost:
    """What a document of so many characters and bytes costs a model: `nats` over all of its `tokens`.

    domain, id: of the text. unknown_tokens, window: as in BitsPerChar.
    """

    domain: str
    id: str
    nats: float
    characters: int
    bytes: int
    tokens: int
    unknown_tokens: int
    window: int

    @property
    def bits(self) -> float:
        return self.nats / math.log(2)


def bits_per_char(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str],
    window: int | None = None,
) -> BitsPerChar:
    """Measure `model` on `texts`: `document_costs`, summed.

    Raises:
        UserError: no text, or a window outside 1 to the model's context.
    """
    return total_cost(document_costs(model, tokenizer, map(HeldOutText, texts), window))


def total_cost(costs: Iterable[DocumentCost]) -> BitsPerChar:
    """The averages over documents.

    Raises:
        UserError: there is none.
    """
    costs = list(costs)
    if not costs:
        raise UserError("no text to measure bits per character on: every document was empty")
    nats, bits = sum(cost.nats for cost in costs), sum(cost.bits for cost in costs)
    characters, byte_count = (sum(getattr(c, of) for c in costs) for of in ("characters", "bytes"))
    tokens = sum(cost.tokens for cost in costs)
    return BitsPerChar(
        bits_per_char=bits / characters,
        bits_per_byte=bits / byte_count,
        nats_per_token=nats / tokens,
        documents=len(costs),
        characters=characters,
        bytes=byte_count,
        tokens=tokens,
        unknown_tokens=sum(cost.unknown_tokens for cost in costs),
        window=costs[0].window,
    )


def document_costs(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[HeldOutText],
    window: int | None = None,
) -> Iterator[DocumentCost]:
    """The cost of each text to `model`, on its device and in its dtype.

    A document longer than `window` tokens is cut as in training: each window begins with the last token of
    the one before, every token is predicted once, without context from earlier windows. By default it is the
    longest row that the model was trained on, so that this is the validation figure of its run; else the
    model's context. Empty texts are skipped.

    Raises:
        UserError: a window outside 1 to the model's context.
    """
    config = getattr(model, "config")  # noqa: B009
    longest = int(config.context_length)
    window = min(longest, config.training_sequence_length or longest) if window is None else window
    if not 1 <= window <= longest:
        raise UserError(f"window={window} must be from 1 to the model's context of {longest}")
    document_token = document_token_id(tokenizer)
    unknown_token = tokenizer.unk_token_id
    remaining = (text for text in texts if text.text)
    while group := list(islice(remaining, GROUP_DOCUMENTS)):
        encoded = encode_texts(tokenizer, [text.text for text in group])
        pieces = [list(windows([document_token, *ids, document_token], window)) for ids in encoded]
        nlls = iter(sequence_nlls(model, [piece for one in pieces for piece in one]))
        for text, ids, own in zip(group, encoded, pieces, strict=True):
            yield DocumentCost(
                domain=text.domain,
                id=text.id,
                nats=sum(nll.double().sum().item() for nll in islice(nlls, len(own))),
                characters=len(text.text),
                bytes=len(text.text.encode()),
                tokens=len(ids) + 1,
                unknown_tokens=ids.count(unknown_token) if isinstance(unknown_token, int) else 0,
                window=window,
            )


def text_items(costs: Iterable[DocumentCost]) -> list[dict[str, Any]]:
    """One record a document for the log: its bits are the score; numbered where the text has no id."""
    return [
        {
            "part": "text",
            "id": cost.id or number,
            "score": cost.bits,
            "characters": cost.characters,
            "bytes": cost.bytes,
        }
        for number, cost in enumerate(costs)
    ]


def windows(ids: list[int], window: int) -> Iterator[list[int]]:
    """Pieces of at most `window` predictions each; neighbours share one token."""
    for start in range(0, len(ids) - 1, window):
        yield ids[start : start + window + 1]

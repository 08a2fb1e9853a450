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

from torch import nn
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
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


def bits_per_char(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str],
    window: int | None = None,
) -> BitsPerChar:
    """Measure `model` on `texts`, on its device and in its dtype.

    A document longer than `window` tokens is cut as in training: each window begins with the last token of
    the one before, every token is predicted once, without context from earlier windows. By default it is the
    longest row that the model was trained on, so that this is the validation figure of its run; else the
    model's context. Empty texts are skipped.

    Raises:
        UserError: no text, or a window outside 1 to the model's context.
    """
    config = getattr(model, "config")  # noqa: B009
    longest = int(config.context_length)
    window = min(longest, config.training_sequence_length or longest) if window is None else window
    if not 1 <= window <= longest:
        raise UserError(f"window={window} must be from 1 to the model's context of {longest}")
    document_token = document_token_id(tokenizer)
    unknown_token = tokenizer.unk_token_id
    nats = 0.0
    documents = characters = byte_count = tokens = unknown = 0
    remaining = (text for text in texts if text)
    while group := list(islice(remaining, GROUP_DOCUMENTS)):
        pieces: list[list[int]] = []
        for ids in encode_texts(tokenizer, group):
            unknown += ids.count(unknown_token) if isinstance(unknown_token, int) else 0
            pieces.extend(windows([document_token, *ids, document_token], window))
        for nll in sequence_nlls(model, pieces):
            nats += nll.double().sum().item()
            tokens += len(nll)
        documents += len(group)
        characters += sum(map(len, group))
        byte_count += sum(len(text.encode()) for text in group)
    if documents == 0:
        raise UserError("no text to measure bits per character on: every document was empty")
    bits = nats / math.log(2)
    return BitsPerChar(
        bits_per_char=bits / characters,
        bits_per_byte=bits / byte_count,
        nats_per_token=nats / tokens,
        documents=documents,
        characters=characters,
        bytes=byte_count,
        tokens=tokens,
        unknown_tokens=unknown,
        window=window,
    )


def windows(ids: list[int], window: int) -> Iterator[list[int]]:
    """Pieces of at most `window` predictions each; neighbours share one token."""
    for start in range(0, len(ids) - 1, window):
        yield ids[start : start + window + 1]

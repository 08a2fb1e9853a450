"""How well a tokenizer fits a text: compression, exactness, use of the vocabulary.

Takes tokenizers and a few texts; gives numbers that compare vocabularies of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.tokenizer.load import encode_texts


@dataclass(frozen=True)
class TokenizerReport:
    """Shares are of documents (exact, truncated) or tokens (unknown).

    exact: decoded again they are the same text. truncated: longer than `context` tokens.
    vocabulary_used: share of the vocabulary that occurs in the texts at all.
    """

    vocab_size: int
    documents: int
    characters: int
    tokens: int
    characters_per_token: float
    bytes_per_token: float
    exact: float
    unknown: float
    truncated: float
    context: int
    vocabulary_used: float


def report(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int = 2048
) -> TokenizerReport:
    """Measure `tokenizer` on `texts`, all held in memory. Raises UserError when they are empty."""
    texts = [text for text in texts if text]
    if not texts:
        raise UserError("no text to report on: every document was empty")
    encoded = encode_texts(tokenizer, texts)
    decoded = tokenizer.backend_tokenizer.decode_batch(encoded, skip_special_tokens=False)
    lengths = np.array([len(ids) for ids in encoded])
    seen = np.unique(np.concatenate([np.array(ids, np.int64) for ids in encoded]))
    tokens = int(lengths.sum())
    unknown = tokenizer.unk_token_id
    return TokenizerReport(
        vocab_size=len(tokenizer),
        documents=len(texts),
        characters=sum(map(len, texts)),
        tokens=tokens,
        characters_per_token=sum(map(len, texts)) / tokens,
        bytes_per_token=sum(len(text.encode()) for text in texts) / tokens,
        exact=float(np.mean([a == b for a, b in zip(texts, decoded, strict=True)])),
        unknown=sum(ids.count(unknown) for ids in encoded) / tokens
        if isinstance(unknown, int)
        else 0.0,
        truncated=float((lengths > context).mean()),
        context=context,
        vocabulary_used=len(seen) / len(tokenizer),
    )

"""Held-out text for an evaluation: documents of text shards, the first characters, ids as in training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from mengya.data.shards import TokenShards
from mengya.tokenizer.load import document_token_id, encode_texts


def texts_of_shards(
    folders: Iterable[Path], tokenizer: PreTrainedTokenizerFast, tokenizer_sha256: str
) -> Iterator[str]:
    """The documents of text shards, decoded, without the document token at both ends.

    Raises:
        UserError: shards of another kind, or made with another tokenizer.
    """
    for folder in folders:
        shards = TokenShards(folder)
        shards.require("text", tokenizer_sha256=tokenizer_sha256)
        for document in range(len(shards)):
            ids = shards.tokens(document)[1:-1].tolist()
            yield str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def document_ids(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Iterator[list[int]]:
    """The ids of each text between document tokens, as in training."""
    edge = [document_token_id(tokenizer)]
    for text in texts:
        yield [*edge, *encode_texts(tokenizer, [text])[0], *edge]


def first_characters(texts: Iterable[str], max_characters: int | None) -> Iterator[str]:
    """Full texts until they sum to `max_characters` or more; None: all."""
    characters = 0
    for text in texts:
        yield text
        characters += len(text)
        if max_characters is not None and characters >= max_characters:
            return

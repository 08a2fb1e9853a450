"""Held-out text for an evaluation: documents of text shards, the first characters, ids as in training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from mengya.data.inspection import source_of
from mengya.data.shards import TokenShards
from mengya.tokenizer.load import document_token_id, encode_texts


class HeldOutText(NamedTuple):
    """A text to measure a model on.

    domain: what it is of (law, news); empty where that is not known. id: names it in the log of items.
    """

    text: str
    domain: str = ""
    id: str = ""


def texts_of_shards(
    folders: Iterable[Path], tokenizer: PreTrainedTokenizerFast, tokenizer_sha256: str
) -> Iterator[str]:
    """The documents of text shards, decoded, without the document token at both ends.

    Raises:
        UserError: shards of another kind, or made with another tokenizer.
    """
    return (found.text for found in documents_of_shards(folders, tokenizer, tokenizer_sha256))


def documents_of_shards(
    folders: Iterable[Path], tokenizer: PreTrainedTokenizerFast, tokenizer_sha256: str
) -> Iterator[HeldOutText]:
    """As `texts_of_shards`; the domain of a document is its source in a folder of several sources.

    Raises:
        UserError: as `texts_of_shards`.
    """
    for folder in folders:
        shards = TokenShards(folder)
        shards.require("text", tokenizer_sha256=tokenizer_sha256)
        several = sum(s["documents"] > 0 for s in shards.manifest.get("sources", [])) > 1
        for document in range(len(shards)):
            ids = shards.tokens(document)[1:-1].tolist()
            text = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
            source = source_of(shards.manifest, document) if several else None
            domain = "" if source is None else str(source["name"])
            yield HeldOutText(text, domain, f"{folder}:{document}")


def document_ids(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Iterator[list[int]]:
    """The ids of each text between document tokens, as in training."""
    edge = [document_token_id(tokenizer)]
    for text in texts:
        yield [*edge, *encode_texts(tokenizer, [text])[0], *edge]


def first_characters(
    texts: Iterable[HeldOutText], max_characters: int | None
) -> Iterator[HeldOutText]:
    """Full texts until they sum to `max_characters` or more; None: all."""
    characters = 0
    for text in texts:
        yield text
        characters += len(text.text)
        if max_characters is not None and characters >= max_characters:
            return

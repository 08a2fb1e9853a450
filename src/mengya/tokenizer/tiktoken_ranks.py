"""A vocabulary in tiktoken's format (`qwen.tiktoken`: a token in base64 and its rank a line) as a backend.

Takes the bytes of the file; gives byte-level BPE with the same ids. How text is split into words is not in
the file: it goes by the number of tokens, or is named. Knows no files and nothing of chats.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from mengya.errors import UserError, shown
from mengya.tokenizer.merges import merges_of
from mengya.tokenizer.word_split import SPLIT_PATTERN

Split = Literal["qwen2", "llama3", "gpt2"]


@dataclass(frozen=True)
class _Rule:
    """How text becomes words: the pattern, whether it is put into NFC first, tokens of the usual file."""

    pattern: str
    composed: bool
    tokens: int


_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
RULES: dict[Split, _Rule] = {
    "qwen2": _Rule(SPLIT_PATTERN, True, 151_643),
    "llama3": _Rule(SPLIT_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|"), False, 128_000),
    "gpt2": _Rule(_GPT2, False, 50_256),
}


def parse_ranks(data: bytes, name: str) -> dict[bytes, int]:
    """The rank of every token.

    Raises:
        UserError: a line is none, ids have gaps, or one of the 256 bytes has no token.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise UserError(
                f"{name}:{number}: {shown(line.decode(errors='replace'))} is no token in base64 and its "
                "rank; the file is damaged: fetch it again"
            ) from None
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise UserError(
            f"{name} is damaged: its ranks are not 0 to {len(ranks) - 1}; fetch it again"
        )
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise UserError(
            f"{name} is damaged: {len(missing)} of the 256 bytes have no token; fetch it again"
        )
    return ranks


def split_of(ranks: dict[bytes, int], name: str, split: Split | None) -> Split:
    """The named rule, else that of the file with so many tokens.

    Raises:
        UserError: neither says it.
    """
    usual: Iterator[Split] = (k for k, rule in RULES.items() if rule.tokens == len(ranks))
    found = split or next(usual, None)
    if found is None:
        raise UserError(
            f"{name} does not say how it splits text into words, and has {len(ranks):,} tokens, as no file "
            f"that mengya knows; write split={' or split='.join(RULES)}, whichever its model uses"
        )
    return found


def tiktoken_backend(ranks: dict[bytes, int], split: Split) -> Tokenizer:
    """Byte-level BPE with these ids."""
    characters = bytes_to_unicode()
    texts = {"".join(map(characters.__getitem__, token)): rank for token, rank in ranks.items()}
    merges = merges_of(texts)
    # tiktoken takes a word that is a token as it is; where merging finds every token, that changes nothing.
    merged = Tokenizer(models.BPE(texts, merges))
    found = merged.encode_batch_fast(list(texts), add_special_tokens=False)
    reached = all(e.ids == [i] for e, i in zip(found, texts.values(), strict=True))
    backend = merged if reached else Tokenizer(models.BPE(texts, merges, ignore_merges=True))
    if RULES[split].composed:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(RULES[split].pattern), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend

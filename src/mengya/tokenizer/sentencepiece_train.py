"""Train a SentencePiece model with its library: strings in, the bytes of a .model file out. Knows no files.

The ids of the special tokens are those of our byte-level BPE; after them come the unknown token, the 256
bytes and the pieces. No space is put before a text and none is taken away, so that a text comes back as it
was (with normalization=nfkc: in its normal form).
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Literal

from pydantic import Field

from mengya.config import Config
from mengya.errors import UserError
from mengya.runtime.optional import require
from mengya.tokenizer.sentencepiece_model import NORMAL, UNIGRAM, parse_model
from mengya.tokenizer.special_tokens import ALL_SPECIAL, CONTROL_TOKENS, TAG_TOKENS
from mengya.tokenizer.train import MAX_TOKEN_CHARACTERS, TEMPLATE_WORDS, sample_pieces

UNKNOWN = "<unk>"
_MINIMUM_COVERAGE, _MAXIMUM_COVERAGE = 0.98, 0.9995  # the library takes no less
_SKIPPED = "\u2585"  # the library leaves out sentences that hold it
# Scores are multiples of this: sums are then exact in the 32 bits of SentencePiece up to some 30,000 tokens,
# so that whatever adds them in 64 bits chooses the same pieces.
_SCORE_STEP = 1 / 64
_THREADS = (
    2  # the sums of unigram training depend on their number, so it is not that of the machine
)


class SentencePieceConfig(Config):
    byte_fallback: bool = True
    """Characters without a token of their own are written as bytes; false: as one unknown token."""
    split_digits: bool = True
    """Every digit is a token."""
    normalization: Literal["identity", "nfkc"] = "identity"
    """identity: a text comes back to the letter. nfkc: full-width letters and digits, ligatures and the like
    become their usual forms first, and stay so."""
    character_coverage: float | None = Field(default=None, ge=_MINIMUM_COVERAGE, le=1)
    """Share of the text whose characters get tokens of their own; null: the largest up to 0.9995 whose
    characters take at most half of the vocabulary."""
    max_sentence_length: int = Field(default=16384, ge=64)
    """Text is trained on in pieces of at most so many bytes."""


def train_sentencepiece(
    texts: Iterable[str],
    model_type: Literal["bpe", "unigram"],
    vocab_size: int = 6400,
    options: SentencePieceConfig | None = None,
    *,
    max_characters: int = 10_000_000,
    max_token_characters: int | None = MAX_TOKEN_CHARACTERS,
) -> bytes:
    """A model of exactly `vocab_size` tokens, special tokens and bytes among them.

    The same texts, in any order, give the same model. Text beyond `max_characters` is sampled.

    Raises:
        UserError: there is no text, or vocab_size is too small for its characters, or too large for it.
    """
    options = options or SentencePieceConfig()
    pieces = [piece.replace(_SKIPPED, "") for piece in sample_pieces(texts, max_characters)]
    if not any(pieces):
        raise UserError("no text to train the tokenizer on: every document was empty")
    pieces = list(_cut(pieces, options.max_sentence_length // 4))
    # A word of the chat template is written in every turn: it counts as a thousandth of the text.
    pieces += [TEMPLATE_WORDS] * max(1000, sum(map(len, pieces)) // 1000 // len(TEMPLATE_WORDS))
    room = vocab_size - len(ALL_SPECIAL) - 1 - 256 * options.byte_fallback
    coverage = options.character_coverage or _coverage(pieces, room, vocab_size)
    out = io.BytesIO()
    _run(
        sentence_iterator=iter(pieces),
        model_writer=out,
        model_type=model_type,
        vocab_size=vocab_size,
        byte_fallback=options.byte_fallback,
        split_digits=options.split_digits,
        normalization_rule_name=options.normalization,
        character_coverage=coverage,
        max_sentence_length=4
        * options.max_sentence_length,  # nothing is longer: nothing is left out
        max_sentencepiece_length=max_token_characters or 64,
        **_SPECIAL,
    )
    return _with_exact_sums(out.getvalue())


_SPECIAL: dict[str, Any] = {
    "bos_id": ALL_SPECIAL.index(CONTROL_TOKENS[0]),
    "eos_id": ALL_SPECIAL.index(CONTROL_TOKENS[2]),
    "pad_id": ALL_SPECIAL.index(CONTROL_TOKENS[3]),
    "unk_id": len(ALL_SPECIAL),
    "bos_piece": CONTROL_TOKENS[0],
    "eos_piece": CONTROL_TOKENS[2],
    "pad_piece": CONTROL_TOKENS[3],
    "unk_piece": UNKNOWN,
    "control_symbols": [CONTROL_TOKENS[1], *TAG_TOKENS, *ALL_SPECIAL[10:]],
    "required_chars": "\n",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,  # the indentation of code
    "num_threads": _THREADS,
    "minloglevel": 2,
}


def _run(**settings: Any) -> None:
    trainer = require("sentencepiece", "sentencepiece").SentencePieceTrainer
    try:
        trainer.train(**settings)
    except RuntimeError as error:
        text, size = str(error), settings["vocab_size"]
        if found := re.search(r"too high.*<= (\d+)", text, re.DOTALL):
            raise UserError(
                f"vocab_size={size} is more than the text gives: write vocab_size={found[1]}, or name "
                "more text"
            ) from None
        if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", text):
            raise UserError(
                f"vocab_size={size} is too small for the characters of the text, the bytes and the special "
                f"tokens: write vocab_size={2 * int(found[1])}"
            ) from None
        raise UserError(f"SentencePiece cannot train on this text: {text}") from error


def _cut(pieces: Iterable[str], characters: int) -> Iterator[str]:
    for piece in pieces:
        yield from (piece[at : at + characters] for at in range(0, len(piece), characters))


def _coverage(pieces: Sequence[str], room: int, vocab_size: int) -> float:
    """The largest share of the text whose characters take at most half of `room` tokens.

    Raises:
        UserError: the least that the library takes needs more.
    """
    counts = sorted(Counter("".join(pieces)).values(), reverse=True)
    covered = [seen / sum(counts) for seen in accumulate(counts)]
    least = 1 + next(i for i, share in enumerate(covered) if share >= _MINIMUM_COVERAGE)
    if least > room:
        enough = vocab_size - room + least + least // 20 + 32
        raise UserError(
            f"vocab_size={vocab_size} is too small: {least} characters make {_MINIMUM_COVERAGE:.0%} of the "
            f"text, and SentencePiece gives each of them a token. Write vocab_size={enough} or more, or "
            "model=bpe, which knows bytes alone"
        )
    half = covered[min(room // 2, len(covered)) - 1]
    return min(_MAXIMUM_COVERAGE, max(_MINIMUM_COVERAGE, half))


def _with_exact_sums(model: bytes) -> bytes:
    """A unigram model with rounded scores; any other unchanged."""
    proto = parse_model(model, "the trained model")
    if proto.trainer_spec.model_type == UNIGRAM:
        for piece in proto.pieces:
            if piece.type == NORMAL:
                piece.score = round(piece.score / _SCORE_STEP) * _SCORE_STEP
    return proto.SerializeToString(deterministic=True)

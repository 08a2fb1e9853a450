"""A vocabulary file (SentencePiece .model, tiktoken ranks) -> a tokenizer as our folders have it.

`read_vocabulary_file` tells the kinds apart by content; `prove` compares ids with the library that the file
is of. Knows no output folders.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError, shown
from mengya.runtime.optional import require
from mengya.tokenizer.load import encode_texts, load_tokenizer
from mengya.tokenizer.sentencepiece_model import (
    control_pieces,
    only_rounding,
    parse_model,
    sentencepiece_backend,
    unknown_piece,
    with_pieces_of,
)
from mengya.tokenizer.special_tokens import DOCUMENT_TOKEN, chat_tokenizer
from mengya.tokenizer.tiktoken_ranks import RULES, Split, parse_ranks, split_of, tiktoken_backend

TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
_MAX_BYTES = 64 << 20

# What vocabularies differ in: emoji, rare Chinese, white space of all kinds, full-width forms, control
# characters, text that looks like a special token.
PROBES = (
    "", " ", "  ", "\n", "\t", "a", " a", "a ", "  a  b   c  ", "\n\n\n", "\r\n", "\t\t制表\t符",
    "春天来了，院子里的桃花开了。\n小明每天早上七点起床。", "龘靐齉爩𠮷野家𪚥㐂",
    "👨‍👩‍👧‍👦🇨🇳🙂", "ＡＢＣ１２３！？～　全角", "繁體中文與简体", "哈哈哈哈哈哈哈！！！！！",
    "3.14159 2026年12月1日 1,234,567 ①②Ⅳ½", "ﬁ Å é e\u0301 ｶﾞ か\u3099 \u00a0\u2003\u3000x\u200b\ufeff",
    "def f(x):\n    if x:\n        return x  # 注释\n", "=" * 33 + "\n" + " " * 40 + "x", "-" * 70,
    "<0x0A><s></s><unk> <|im_end|>", "\u2581a\u2581\u2581b \u2581", "aaaaaaaaaaaaaaaa", "don't I'LL we've",
    "https://example.com/a?b=c&d=1%20", "ᄒ\u1161ᆫ 한국어 日本語 Ελληνικά русский العربية ไทย",
    "\x00\x01\x7f\x85\u2028",
)  # fmt: skip


@dataclass(frozen=True)
class VocabularyFile:
    """What a file holds.

    Attributes:
        kind: "sentencepiece bpe", "sentencepiece unigram" or "tiktoken".
        tokenizer: the same vocabulary, with the tokens of chats after it where it has none.
        encode: ids of a text by the library itself.
        only_rounding: of unequal ids (theirs, ours), whether nothing but rounding tells them apart.
    """

    path: Path
    kind: str
    tokenizer: PreTrainedTokenizerFast
    encode: Callable[[str], list[int]]
    only_rounding: Callable[[list[int], list[int]], bool]


@dataclass(frozen=True)
class Proof:
    """texts: compared with the library. characters: of those. rounding: of them with other ids, since
    two splits are equally probable."""

    texts: int
    characters: int
    rounding: int


def read_vocabulary_file(path: Path, split: Split | None = None) -> VocabularyFile:
    """The vocabulary of a file.

    Args:
        split: how tiktoken's format splits text into words; of the usual files it is known.

    Raises:
        UserError: it is of no such kind, is damaged, or cannot have equal ids; says why.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file; name a .model or .tiktoken file")
    if path.stat().st_size > _MAX_BYTES:
        raise UserError(
            f"{path} has {path.stat().st_size:,} bytes, more than any vocabulary; name the "
            "tokenizer.model or .tiktoken file of the model"
        )
    data = path.read_bytes()
    _check_kind(path, data)
    if TIKTOKEN_LINE.match(data):
        return _tiktoken(path, data, split)
    if split is not None:
        raise UserError(
            f"split is for files in tiktoken's format, and {path} is none; leave it out"
        )
    return _sentencepiece(path, data)


def open_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder, or of a vocabulary file; UserError as for either."""
    return read_vocabulary_file(path).tokenizer if path.is_file() else load_tokenizer(path)


def with_added(base: Path, more: Path) -> tuple[VocabularyFile, bytes, int]:
    """A SentencePiece BPE vocabulary with the pieces of another after its own; the bytes of the new model,
    and how many of the new pieces it can write.

    Raises:
        UserError: as `read_vocabulary_file`, or one of them is of another kind.
    """
    first, second = _model_of(base), _model_of(more)
    merged, count = with_pieces_of(first, second, str(base))
    data = merged.SerializeToString(deterministic=True)
    vocabulary = _sentencepiece(base, data)
    library = require("sentencepiece", "sentencepiece").SentencePieceProcessor(model_proto=data)
    own = len(first.pieces)
    texts = [library.decode([i]) for i in range(own, own + count)]
    written = sum(i in library.encode(text) for i, text in enumerate(texts, own))
    return vocabulary, data, written


def _model_of(path: Path) -> Any:
    if read_vocabulary_file(path).kind == "tiktoken":
        raise UserError(f"{path} is in tiktoken's format; add joins two SentencePiece models")
    return parse_model(path.read_bytes(), str(path))


def _check_kind(path: Path, data: bytes) -> None:
    if not data.strip():
        raise UserError(f"{path} is empty; fetch it again")
    if data.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{path} is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`, or with "
            "hf download OWNER/NAME tokenizer.model"
        )
    if data.startswith(b"[PAD]") or path.name == "vocab.txt":
        raise UserError(
            f"{path} is a WordPiece vocabulary (BERT): it drops spaces, line ends and unknown characters, so "
            "a text cannot be had back from its ids, and no language model of ours is made with one; train a "
            "tokenizer with `mengya tokenizer`"
        )
    if data[:1] == b"{":
        raise UserError(
            f"{path} is JSON, not a vocabulary file; name its folder {path.parent} instead"
        )


def sentencepiece_tokenizer(data: bytes, name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of the bytes of a .model file; UserError as `read_vocabulary_file`."""
    return _chat_tokenizer(parse_model(data, name), name)


def _chat_tokenizer(proto: Any, name: str) -> PreTrainedTokenizerFast:
    control = control_pieces(proto)
    ours = DOCUMENT_TOKEN in control
    bos = next((t for t in ("<s>", "<bos>", "[BOS]") if t in control), DOCUMENT_TOKEN)
    return chat_tokenizer(
        sentencepiece_backend(proto, name),
        reserved=ours,
        more_special=[] if ours else [*control, unknown_piece(proto)],
        bos_token=DOCUMENT_TOKEN if ours else bos,
        unk_token=unknown_piece(proto),
    )


def _sentencepiece(path: Path, data: bytes) -> VocabularyFile:
    proto = parse_model(data, str(path))
    kind = {1: "sentencepiece unigram", 2: "sentencepiece bpe"}.get(proto.trainer_spec.model_type)
    tokenizer = _chat_tokenizer(proto, str(path))
    library = require("sentencepiece", "sentencepiece").SentencePieceProcessor(model_proto=data)
    return VocabularyFile(
        path,
        str(kind),
        tokenizer,
        lambda text: list(library.encode(text)),
        lambda theirs, ours: only_rounding(proto, theirs, ours),
    )


def _tiktoken(path: Path, data: bytes, split: Split | None) -> VocabularyFile:
    ranks = parse_ranks(data, str(path))
    split = split_of(ranks, str(path), split)
    rule = RULES[split]

    def encode(text: str) -> list[int]:
        composed = unicodedata.normalize("NFC", text) if rule.composed else text
        return encoding().encode_ordinary(composed)

    library: list[Any] = []

    def encoding() -> Any:
        if not library:
            make = require("tiktoken", "tiktoken").Encoding
            library.append(
                make(path.name, pat_str=rule.pattern, mergeable_ranks=ranks, special_tokens={})
            )
        return library[0]

    tokenizer = chat_tokenizer(tiktoken_backend(ranks, split), reserved=False)
    return VocabularyFile(path, "tiktoken", tokenizer, encode, lambda theirs, ours: False)


def prove(vocabulary: VocabularyFile, texts: Iterable[str]) -> Proof:
    """Compare the ids of texts with those of the library that the file is of.

    Raises:
        UserError: some differ by more than rounding; with the place.
    """
    count = characters = rounding = 0
    for text in texts:
        theirs, (ours,) = vocabulary.encode(text), encode_texts(vocabulary.tokenizer, [text])
        count, characters = count + 1, characters + len(text)
        if theirs == ours:
            continue
        if not vocabulary.only_rounding(theirs, ours):
            at = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), 0)
            tokens = vocabulary.tokenizer.convert_ids_to_tokens
            raise UserError(
                f"{vocabulary.path} cannot be converted to equal ids: of {shown(text)} its own library "
                f"makes {tokens(theirs[at : at + 4])} where the converted one makes "
                f"{tokens(ours[at : at + 4])}; use a folder that has a tokenizer.json, or train a "
                "tokenizer of your own with `mengya tokenizer`"
            )
        rounding += 1
    return Proof(count, characters, rounding)

"""Trained and converted SentencePiece vocabularies, with the library itself as the oracle."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any, Literal

import pytest
import sentencepiece
from transformers import AutoTokenizer

from mengya.errors import UserError
from mengya.runtime.optional import require
from mengya.tokenizer.chat_template import encode_conversation, encode_prompt
from mengya.tokenizer.extend import extend_tokenizer
from mengya.tokenizer.load import (
    document_token_id,
    encode_texts,
    load_tokenizer,
    save_tokenizer,
    stop_token_ids,
)
from mengya.tokenizer.sentencepiece_model import only_rounding, parse_model
from mengya.tokenizer.sentencepiece_train import SentencePieceConfig, train_sentencepiece
from mengya.tokenizer.special_tokens import ALL_SPECIAL
from mengya.tokenizer.vocabulary_file import (
    PROBES,
    prove,
    read_vocabulary_file,
    sentencepiece_tokenizer,
    with_added,
)

Model = tuple[Literal["bpe", "unigram"], Literal["identity", "nfkc"], bool]
KINDS: list[Model] = [
    ("bpe", "identity", True),
    ("unigram", "identity", True),
    ("bpe", "nfkc", True),
    ("unigram", "nfkc", False),
]
SALT = [
    "  ",
    "\u2581",
    "\t",
    "🙂",
    "龘",
    "　",
    "\u0301",
    "<0x0A>",
    "<s>",
    "～",
    "ｶﾞ",
    "\r\n",
    "ＡＢ",
    "aaa",
    "\n",
]


@pytest.fixture(scope="session", name="corpus")
def many_words() -> list[str]:
    """Texts of 300 made-up words of 150 characters, and some English and numbers."""
    draw = random.Random(1)
    words = [
        "".join(chr(0x4E00 + draw.randrange(150)) for _ in range(2 + i % 2)) for i in range(300)
    ]
    words += [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "lazy",
        "dog",
        "def",
        "return",
        "while",
    ] * 4
    ends = ["，", "。", "\n", " ", "12", "2026年", "\n    "]
    return [
        "".join(draw.choice(words) + draw.choice(["", "", *ends]) for _ in range(30))
        for _ in range(300)
    ]


@pytest.fixture(scope="session")
def models(corpus: list[str]) -> dict[Model, bytes]:
    found = {}
    for kind, normalization, fallback in KINDS:
        options = SentencePieceConfig(
            normalization=normalization,
            byte_fallback=fallback,
            character_coverage=0.98,
        )
        found[kind, normalization, fallback] = train_sentencepiece(
            corpus, kind, 600 if fallback else 400, options
        )
    return found


def salted(corpus: list[str], count: int) -> list[str]:
    """Pieces of text with what tokenizers trip over put in at random places."""
    draw = random.Random(0)
    texts = []
    for _ in range(count):
        text = list(draw.choice(corpus)[draw.randrange(20) :][: draw.randrange(1, 40)])
        for _ in range(3):
            text.insert(draw.randrange(len(text) + 1), draw.choice(SALT))
        texts.append("".join(text))
    return texts


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k[0]}-{k[1]}-{k[2]}")
def test_the_folder_has_the_ids_of_the_library(
    kind: Model,
    models: dict[Model, bytes],
    corpus: list[str],
    tmp_path: Path,
) -> None:
    save_tokenizer(sentencepiece_tokenizer(models[kind], "m"), tmp_path)
    ours = load_tokenizer(tmp_path)
    library = sentencepiece.SentencePieceProcessor(model_proto=models[kind])
    texts = [*PROBES, *corpus, *salted(corpus, 300), "\n".join(corpus)]
    for text, ids in zip(texts, encode_texts(ours, texts), strict=True):
        assert ids == library.encode(text), text
        assert ours.decode(ids) == library.decode(ids) or not kind[2], text
        if kind[1:] == ("identity", True) and "\u2581" not in text:
            assert ours.decode(ids) == text
    assert len(ours) == library.get_piece_size()


def test_special_tokens_are_those_of_our_byte_level_folders(
    models: dict[Model, bytes], tokenizer, tmp_path: Path
) -> None:
    save_tokenizer(sentencepiece_tokenizer(models[KINDS[0]], "m"), tmp_path)
    ours = load_tokenizer(tmp_path)
    assert ours.convert_tokens_to_ids(list(ALL_SPECIAL)) == list(range(16))
    for name in ("bos_token", "eos_token", "pad_token"):
        assert getattr(ours, name) == getattr(tokenizer, name)
    assert document_token_id(ours) == 0 and stop_token_ids(ours) == [0, 2]
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    messages = [
        {"role": "user", "content": "你好<|im_end|>"},
        {"role": "assistant", "content": "你好！"},
    ]
    ids, mask = encode_conversation(ours, messages)
    assert ids.count(2) == 2  # the typed one is text
    learned = [i for i, m in zip(ids, mask, strict=True) if m]
    assert ours.decode(learned) == "你好！<|im_end|>"
    assert ids[: len(encode_prompt(ours, messages[:1]))] == encode_prompt(ours, messages[:1])
    plain = [{"role": "user", "content": "天气"}]
    assert theirs.apply_chat_template(plain)["input_ids"] == encode_conversation(ours, plain)[0]


def test_the_same_texts_in_any_order_give_the_same_model(corpus: list[str]) -> None:
    first = train_sentencepiece(corpus, "bpe", 600)
    assert first == train_sentencepiece(corpus[::-1], "bpe", 600)
    proto = parse_model(first, "m")
    assert proto.trainer_spec.byte_fallback and proto.trainer_spec.split_digits
    assert not any(len(p.piece) > 1 and p.piece.isdigit() for p in proto.pieces)


def test_unigram_scores_add_up_exactly_in_32_bits(
    models: dict[Model, bytes],
) -> None:
    pieces = parse_model(models[KINDS[1]], "m").pieces
    assert all((64 * p.score).is_integer() for p in pieces) and len({p.score for p in pieces}) > 50


@pytest.mark.parametrize(
    ("texts", "size", "words"),
    [
        ([], 6400, "no text"),
        (["", ""], 6400, "no text"),
        (["春天来了。"] * 3, 6400, r"more than the text gives: write vocab_size=(\d+)"),
        ([chr(0x4E00 + i) * 9 for i in range(3000)], 400, r"too small.*vocab_size=(\d+)"),
    ],
)
def test_text_that_does_not_fit_the_size_is_refused_with_one_that_does(
    texts: list[str], size: int, words: str
) -> None:
    with pytest.raises(UserError, match=words) as refused:
        train_sentencepiece(texts, "bpe", size)
    for remedy in re.findall(r"[Ww]rite vocab_size=(\d+)", str(refused.value)):
        data = train_sentencepiece(texts, "bpe", int(remedy))
        assert len(parse_model(data, "m").pieces) == int(remedy)


def foreign(tmp_path: Path, corpus: list[str], **settings: Any) -> Path:
    """A model as others train them: `<s>` and `</s>`, a space before every text."""
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(corpus), "utf-8")
    options = {"vocab_size": 560, "model_type": "bpe", "minloglevel": 2, "byte_fallback": True}
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines), model_prefix=str(tmp_path / "other"), **options | settings
    )
    return tmp_path / "other.model"


@pytest.mark.parametrize(
    "settings", [{}, {"model_type": "unigram"}, {"normalization_rule_name": "identity"}]
)
def test_a_foreign_model_is_converted(
    settings: dict[str, Any], tmp_path: Path, corpus: list[str]
) -> None:
    path = foreign(tmp_path, corpus, **settings)
    vocabulary = read_vocabulary_file(path)
    proof = prove(vocabulary, [*PROBES, *corpus, *salted(corpus, 200)])
    assert proof.texts == len(PROBES) + len(corpus) + 200
    assert vocabulary.tokenizer.bos_token == "<s>" and document_token_id(vocabulary.tokenizer) == 1
    assert vocabulary.tokenizer.convert_tokens_to_ids("<|endoftext|>") == 560
    messages = [{"role": "user", "content": "一丁"}, {"role": "assistant", "content": "七万"}]
    ids, mask = encode_conversation(vocabulary.tokenizer, messages)
    assert ids[: len(encode_prompt(vocabulary.tokenizer, messages[:1]))] == encode_prompt(
        vocabulary.tokenizer, messages[:1]
    )
    assert sum(mask) >= 2
    with pytest.raises(UserError, match="special=true"):
        extend_tokenizer(vocabulary.tokenizer, ["心肌梗死"])
    extended, _ = extend_tokenizer(vocabulary.tokenizer, ["<|心|>"], special=True)
    assert len(extended) == len(vocabulary.tokenizer) + 1


def test_a_difference_that_is_no_rounding_is_refused(tmp_path: Path, corpus: list[str]) -> None:
    path = foreign(tmp_path, corpus, model_type="unigram")
    vocabulary = read_vocabulary_file(path)
    proto = parse_model(path.read_bytes(), "m")
    text = next(p.piece for p in proto.pieces if len(p.piece) == 3 and p.piece[0] != "\u2581")
    single = [proto_id(proto, c) for c in f"\u2581{text}"]
    assert not only_rounding(proto, vocabulary.encode(text), single)
    other = read_vocabulary_file(foreign(tmp_path, corpus[:200], model_type="unigram"))
    mixed = type(vocabulary)(
        path, "m", other.tokenizer, vocabulary.encode, vocabulary.only_rounding
    )
    with pytest.raises(UserError, match="cannot be converted to equal ids"):
        prove(mixed, corpus)


def proto_id(proto: Any, piece: str) -> int:
    return next((i for i, p in enumerate(proto.pieces) if p.piece == piece), 0)


def test_equally_probable_splits_are_told_from_others() -> None:
    proto = require("sentencepiece.sentencepiece_model_pb2", "sentencepiece").ModelProto()
    proto.trainer_spec.model_type = 1
    for piece, score in (("6", -3.0), ("66", -4.0), ("a", -1.0), ("6a", -9.0)):
        proto.pieces.add(piece=piece, score=score, type=1)
    assert only_rounding(proto, [0, 1, 2], [1, 0, 2])
    assert not only_rounding(proto, [0, 1, 2], [1, 3])
    assert not only_rounding(proto, [0, 1, 2], [0, 1])
    proto.trainer_spec.model_type = 2
    assert not only_rounding(proto, [0, 1, 2], [1, 0, 2])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "char", "vocab_size": 100, "byte_fallback": False}, "char model"),
        ({"model_type": "word", "vocab_size": 100, "byte_fallback": False}, "word model"),
        ({"user_defined_symbols": ["哈哈"]}, "user-defined symbols"),
        ({"treat_whitespace_as_suffix": True}, "spaces in another way"),
    ],
)
def test_what_tokenizers_has_no_like_for_is_refused(
    settings: dict[str, Any], words: str, tmp_path: Path, corpus: list[str]
) -> None:
    path = foreign(tmp_path, corpus, hard_vocab_limit=False, **settings)
    with pytest.raises(UserError, match=words):
        read_vocabulary_file(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"[PAD]\n[UNK]\n", "WordPiece"),
        (b'{"model": {}}', "is JSON"),
        (b"PK\x03\x04weights", "weights or a pickle"),
        (b"\x0a\xff\xff\xff\xff", "no SentencePiece model, or damaged"),
        (b"some words\n", "no SentencePiece model"),
        (b"IQ== 0\nIg== 7\n", "ranks are not 0 to 1"),
        (b"IQ== 0\n!!! 1\n", ":2: '!!! 1' is no token"),
        (b"IQ== 0\nIg== 1\n", "254 of the 256 bytes"),
    ],
)
def test_files_that_are_something_else(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_vocabulary_file(path)


def test_a_damaged_model_is_refused(models: dict[Model, bytes], tmp_path: Path) -> None:
    path = tmp_path / "half.model"
    path.write_bytes(models[KINDS[0]][:3001])
    with pytest.raises(UserError):
        read_vocabulary_file(path)


def test_pieces_of_another_model_come_after_its_own(tmp_path: Path, corpus: list[str]) -> None:
    english = [" ".join(re.findall("[a-z]+", text)) for text in corpus]
    base = foreign(tmp_path, english, vocab_size=300)
    kept = tmp_path / "base.model"
    base.rename(kept)
    more = foreign(tmp_path, corpus, model_type="bpe", vocab_size=600)
    before, (vocabulary, data, written) = read_vocabulary_file(kept), with_added(kept, more)
    proof = prove(vocabulary, [*PROBES, *corpus])
    assert proof.rounding == 0 and 0 < written <= len(parse_model(data, "m").pieces) - 300
    own = [piece.piece for piece in parse_model(kept.read_bytes(), "m").pieces]
    assert [piece.piece for piece in parse_model(data, "m").pieces][: len(own)] == own
    shorter, longer = (len(encode_texts(v.tokenizer, corpus[:1])[0]) for v in (vocabulary, before))
    assert shorter < longer
    unigram = foreign(tmp_path, corpus, model_type="unigram")
    with pytest.raises(UserError, match="is a unigram model"):
        with_added(unigram, kept)

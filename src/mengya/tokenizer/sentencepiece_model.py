"""A SentencePiece model (the bytes of a .model file) as a backend of `tokenizers`, with the same ids.

What that library does otherwise, and what is done about it here:

- It merges pairs, SentencePiece pieces: `merges_of` ranks every pair that makes a piece.
- Its Unigram model takes control tokens and `<0x0A>` for pieces of text: what a text has of them is cut in
  two first, where no piece is cut.
- It sums probabilities in 64 bits, SentencePiece in 32: where two splits of a text are equally probable but
  for that rounding, the two may choose differently. `only_rounding` tells such a difference from a fault.
- Its table of character forms (`Precompiled`) works by grapheme and loses accents: NFKC goes first.

Knows no files and nothing of chats.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mengya.errors import UserError, shown
from mengya.runtime.optional import require
from mengya.tokenizer.merges import merges_of

MODEL_FILE = "tokenizer.model"  # its usual name in a folder
SPACE = "\u2581"  # how SentencePiece writes a space
# Types of a piece, and of a model, in sentencepiece_model.proto.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE, UNUSED = 1, 2, 3, 4, 6, 5
UNIGRAM, BPE = 1, 2
_MODEL_TYPES = {3: "word", 4: "char"}
_UNICODE_FORMS = ("nfkc", "nfkc_cf", "nmt_nfkc", "nmt_nfkc_cf")
_SPACES = f"[\u1680{SPACE}\ufffd]"
_HELD = "\U0010fffc"  # stands for the full-width tilde, which nmt_nfkc keeps, while NFKC runs


def parse_model(data: bytes, name: str) -> Any:
    """The ModelProto of the bytes of a .model file.

    Raises:
        UserError: they are damaged or of another kind, or the package is missing.
    """
    require("google.protobuf", "sentencepiece")
    proto = require("sentencepiece.sentencepiece_model_pb2", "sentencepiece").ModelProto()
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
        raise UserError(
            f"{name} holds weights or a pickle, not a vocabulary; name the tokenizer.model next to it"
        )
    try:
        proto.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError is another class in each of its versions
        raise UserError(
            f"{name} is no SentencePiece model, or damaged ({type(error).__name__}); fetch it again"
        ) from None
    if not any(piece.type == NORMAL for piece in proto.pieces):
        raise UserError(f"{name} is no SentencePiece model: it has no pieces; fetch it again")
    return proto


def sentencepiece_backend(proto: Any, name: str) -> Tokenizer:
    """The model with its own ids.

    Raises:
        UserError: it uses something of SentencePiece for which `tokenizers` has no like; says what.
    """
    if reason := _unlike(proto):
        raise UserError(
            f"{name} cannot be converted to a tokenizer.json of equal ids: {reason}; train a tokenizer of "
            "your own with `mengya tokenizer`, or use a folder that has a tokenizer.json"
        )
    backend = Tokenizer(_bpe(proto) if proto.trainer_spec.model_type == BPE else _unigram(proto))
    steps = [*_normalizers(proto.normalizer_spec), normalizers.Replace(" ", SPACE)]
    backend.normalizer = normalizers.Sequence(steps)
    if proto.trainer_spec.model_type == UNIGRAM:
        backend.pre_tokenizer = _cut_reserved(proto)
    backend.decoder = _decoder(proto)
    return backend


def with_pieces_of(base: Any, more: Any, name: str) -> tuple[Any, int]:
    """The BPE model `base` with the pieces of `more` that it lacks after its own, and how many those are.

    Their scores are below all of its own, in their order: all its ids and merges stay, and the new pieces are
    made out of what it makes of a text.

    Raises:
        UserError: `base` is a unigram model, whose scores are probabilities of its own text; or has them all.
    """
    if base.trainer_spec.model_type != BPE:
        raise UserError(
            f"{name} is a unigram model: pieces of another text have no probability in it; add is for BPE, "
            "so leave it out, or train on both texts with `mengya tokenizer`"
        )
    merged = type(base)()
    merged.CopyFrom(base)
    known = {piece.piece for piece in base.pieces}
    lowest = min(piece.score for piece in base.pieces)
    new = [p.piece for p in more.pieces if p.type == NORMAL and p.piece not in known]
    if not new:
        raise UserError(f"{name} has all pieces of the other model already; leave out add")
    for number, piece in enumerate(new, 1):
        merged.pieces.add(piece=piece, score=lowest - number, type=NORMAL)
    return merged, len(new)


def control_pieces(proto: Any) -> list[str]:
    """Its control tokens, such as `<s>`, in the order of their ids."""
    return [piece.piece for piece in proto.pieces if piece.type == CONTROL]


def unknown_piece(proto: Any) -> str:
    """The piece that stands for what the model cannot write."""
    return next(piece.piece for piece in proto.pieces if piece.type == UNKNOWN)


def only_rounding(proto: Any, theirs: Sequence[int], ours: Sequence[int]) -> bool:
    """Whether two unequal lists of ids are equally probable splits of one text, up to 32-bit rounding.

    Wherever they differ, the difference of their scores is within what rounding the sums can make.
    """
    if proto.trainer_spec.model_type != UNIGRAM:
        return False
    scores, lengths = _scores_and_lengths(proto)
    position, total, i, j = [0, 0], 0.0, 0, 0
    while i < len(theirs) and j < len(ours):
        start, sums = (i, j), [0.0, 0.0]
        while True:  # up to the next place where both have a boundary
            if position[0] <= position[1] and i < len(theirs):
                position[0] += lengths[theirs[i]]
                sums[0] += scores[theirs[i]]
                i += 1
            elif j < len(ours):
                position[1] += lengths[ours[j]]
                sums[1] += scores[ours[j]]
                j += 1
            else:
                return False
            if position[0] == position[1]:
                break
        total += abs(sums[0])
        tokens = i - start[0] + j - start[1]
        if abs(sums[0] - sums[1]) > tokens * 2.0**-23 * max(total, 1.0):
            return False
    return i == len(theirs) and j == len(ours)


def _scores_and_lengths(proto: Any) -> tuple[list[float], list[int]]:
    scores = [piece.score if piece.type == NORMAL else 0.0 for piece in proto.pieces]
    return scores, [len(piece.piece) for piece in proto.pieces]


def _unlike(proto: Any) -> str | None:
    """What of the model `tokenizers` cannot do; None when there is nothing."""
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    types = Counter(piece.type for piece in proto.pieces)
    if trainer.model_type not in (UNIGRAM, BPE):
        kind = _MODEL_TYPES.get(trainer.model_type, str(trainer.model_type))
        return f"it is a {kind} model, neither BPE nor unigram"
    if not types[UNKNOWN]:
        return "it has no unknown token"
    if trainer.byte_fallback and types[BYTE] != 256:
        return f"it falls back to bytes and has {types[BYTE]} of the 256"
    if types[UNUSED]:
        return f"{types[UNUSED]} of its pieces are marked as unused"
    if types[USER_DEFINED] and normalizer.add_dummy_prefix:
        return f"it has {types[USER_DEFINED]} user-defined symbols and writes a space before every text"
    if trainer.treat_whitespace_as_suffix or not normalizer.escape_whitespaces:
        return "it keeps spaces in another way than before words"
    if proto.denormalizer_spec.precompiled_charsmap:
        return "it changes characters when it decodes"
    twice = [p for p, count in Counter(p.piece for p in proto.pieces).items() if count > 1]
    return f"the piece {shown(twice[0])} comes twice" if twice else None


def _bpe(proto: Any) -> models.BPE:
    pieces = proto.pieces
    ranks = {p.piece: -p.score for p in pieces if p.type in (NORMAL, USER_DEFINED)}
    return models.BPE(
        {piece.piece: i for i, piece in enumerate(pieces)},
        merges_of(ranks),
        unk_token=unknown_piece(proto),
        fuse_unk=True,
        byte_fallback=proto.trainer_spec.byte_fallback,
    )


def _unigram(proto: Any) -> models.Unigram:
    unknown = next(i for i, piece in enumerate(proto.pieces) if piece.type == UNKNOWN)
    vocabulary = [(piece.piece, piece.score) for piece in proto.pieces]
    return models.Unigram(vocabulary, unknown, proto.trainer_spec.byte_fallback)


def _cut_reserved(proto: Any) -> pre_tokenizers.PreTokenizer:
    """Cuts what looks like a control token or a byte, so that no text becomes one."""
    neighbours = {
        pair
        for piece in proto.pieces
        if piece.type == NORMAL
        for pair in zip(piece.piece, piece.piece[1:], strict=False)
    }
    single = {p.piece for p in proto.pieces if p.type == NORMAL and len(p.piece) == 1}
    fallback = proto.trainer_spec.byte_fallback

    def exact(left: str, right: str) -> bool:
        """Whether no piece holds both, nor one unknown token does."""
        return (left, right) not in neighbours and (fallback or left in single or right in single)

    rests: dict[str, set[str]] = {}  # what is matched and ends a part -> what follows
    for piece in proto.pieces:
        text = piece.piece
        if piece.type in (NORMAL, USER_DEFINED) or len(text) < 2:
            continue
        cuts = range(1, len(text))
        at = next((k for k in cuts if exact(text[k - 1], text[k])), 1)
        before = f"(?<={re.escape(text[: at - 1])})" if at > 1 else ""
        rest = (
            "0x[0-9A-F]{2}>"[at - 1 :] if piece.type == BYTE and at <= 3 else re.escape(text[at:])
        )
        rests.setdefault(before + re.escape(text[at - 1]), set()).add(rest)
    pattern = "|".join(f"{k}(?=(?:{'|'.join(sorted(v))}))" for k, v in sorted(rests.items()))
    return pre_tokenizers.Split(Regex(pattern), behavior="merged_with_previous")


def _normalizers(spec: Any) -> list[normalizers.Normalizer]:
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        if spec.name in _UNICODE_FORMS:
            nfkc: list[normalizers.Normalizer] = [normalizers.NFKC()]
            if spec.name.startswith("nmt_"):
                held = normalizers.Replace("～", _HELD), normalizers.Replace(_HELD, "～")
                # Bases of graphemes that the table makes spaces: it would take their accents with them.
                nfkc = [held[0], *nfkc, held[1], normalizers.Replace(Regex(_SPACES), " ")]
            steps += nfkc
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
        steps.append(normalizers.Replace(Regex(rf"\A |[ {SPACE}]+\z"), ""))
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return steps


def _decoder(proto: Any) -> decoders.Decoder:
    steps: list[decoders.Decoder] = [decoders.Replace(SPACE, " ")]
    if proto.trainer_spec.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if proto.normalizer_spec.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)

"""A byte-level BPE tokenizer in the words of llama.cpp.

Takes a tokenizer of transformers and the rows of the embedding; gives tokens, their types, merges and the
ids with a meaning. Only a split rule that llama.cpp has under a name can be written, to the character.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError, shown
from mengya.tokenizer.load import TURN_END_TOKENS, document_token_id, stop_token_ids
from mengya.tokenizer.word_split import SPLIT_PATTERN

_LLAMA3 = SPLIT_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# Split rule -> llama.cpp's name for it, and whether it looks for the word in the vocabulary before merging.
_RULES = {SPLIT_PATTERN: ("qwen2", False), _LLAMA3: ("llama-bpe", True)}
_GPT2 = ("gpt-2", False)  # the rule within ByteLevel(use_regex=true)
_REMEDY = "to=hf writes it for programs that read tokenizer.json"


@dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp needs to know.

    Attributes:
        pre: its name for the split rule.
        tokens, types: one for each row of the embedding.
        stop: what ends an answer: eos, the end of a turn (often the same), and others, for one of which
            llama.cpp has a key; it knows the usual names of more.
    """

    pre: str
    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    bos: int
    stop: list[int]
    pad: int | None

    def add_to(self, writer: GGUFWriter) -> None:
        """All keys of the tokenizer but the chat template. No token is put before or after a text: ours."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        writer.add_bos_token_id(self.bos)
        adders = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
        for add, token in zip(adders, self.stop, strict=False):
            add(token)
        if self.pad is not None:
            writer.add_pad_token_id(self.pad)
        writer.add_add_bos_token(False)
        writer.add_add_eos_token(False)


def read_vocabulary(tokenizer: PreTrainedTokenizerFast, rows: int) -> Vocabulary:
    """The tokenizer for an embedding of so many rows; rows that no token has are of type UNUSED.

    Raises:
        UserError: it is not byte-level BPE, or of a split rule that llama.cpp does not know.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    pre = _split_rule(state)
    _check_normalizer(state["normalizer"])
    _check_added(state["added_tokens"])
    tokens, types = _tokens(tokenizer, rows)
    pad = tokenizer.pad_token_id
    return Vocabulary(
        pre=pre,
        tokens=tokens,
        types=types,
        merges=[m if isinstance(m, str) else " ".join(m) for m in state["model"]["merges"]],
        bos=document_token_id(tokenizer),
        stop=_stop(tokenizer),
        pad=pad if isinstance(pad, int) else None,
    )


def _split_rule(state: dict[str, Any]) -> str:
    """llama.cpp's name of it."""
    model = state["model"]
    if model["type"] != "BPE" or model.get("byte_fallback") or not _decodes_bytes(state):
        raise UserError(
            f"the tokenizer is of type {model['type']}, not byte-level BPE, and only that is written as "
            f"GGUF; {_REMEDY}"
        )
    steps = state["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    rule = _named_rule(steps)
    if rule is None or rule[1] != bool(model.get("ignore_merges")):
        raise UserError(
            "llama.cpp has no name for the way in which the tokenizer splits text "
            f"({shown(_pattern(steps))}), and would split it otherwise; {_REMEDY}"
        )
    if model.get("unk_token") or model.get("continuing_subword_prefix") or model.get("dropout"):
        raise UserError(
            f"the tokenizer has an unk_token, a subword prefix or dropout, which GGUF has not; {_REMEDY}"
        )
    return rule[0]


def _decodes_bytes(state: dict[str, Any]) -> bool:
    return '"ByteLevel"' in json.dumps(state["decoder"])


def _named_rule(steps: list[dict[str, Any]]) -> tuple[str, bool] | None:
    kinds = [step.get("type") for step in steps]
    if not kinds or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    if kinds == ["ByteLevel"]:
        return _GPT2 if steps[0].get("use_regex", True) else None
    isolated = kinds == ["Split", "ByteLevel"] and steps[0]["behavior"] == "Isolated"
    if not isolated or steps[0]["invert"] or steps[1].get("use_regex", True):
        return None
    return _RULES.get(_pattern(steps))


def _pattern(steps: list[dict[str, Any]]) -> str:
    pattern = steps[0].get("pattern", steps[0].get("type"))
    return str(pattern.get("Regex", pattern) if isinstance(pattern, dict) else pattern)


def composes_characters(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether it puts text into NFC first, as Qwen's own does: llama.cpp does not."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return (state["normalizer"] or {}).get("type") == "NFC"


def _check_normalizer(normalizer: dict[str, Any] | None) -> None:
    kind = (normalizer or {"type": "NFC"})["type"]
    if kind != "NFC":
        raise UserError(
            f"the tokenizer changes text before it splits it ({kind}), which llama.cpp does not; {_REMEDY}"
        )


def _check_added(added: list[dict[str, Any]]) -> None:
    flags = ("lstrip", "rstrip", "single_word")
    for token in added:
        if found := [flag for flag in flags if token.get(flag)]:
            raise UserError(
                f"the added token {token['content']!r} has {found[0]}=true, which llama.cpp does not "
                f"know; set it to false in tokenizer.json, or: {_REMEDY}"
            )


def _tokens(tokenizer: PreTrainedTokenizerFast, rows: int) -> tuple[list[str], list[TokenType]]:
    """Special tokens are CONTROL: a text never becomes one, and answers are shown without them. Other added
    tokens (`<think>`, words of `mengya extend`) are USER_DEFINED: found in every text, and shown."""
    by_id = {i: token for token, i in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    tokens, types = [], []
    for i in range(rows):
        if i in added:
            kind = TokenType.CONTROL if added[i].special else TokenType.USER_DEFINED
            tokens.append(added[i].content)
        elif i in by_id:
            kind = TokenType.NORMAL
            tokens.append(by_id[i])
        else:
            kind = TokenType.UNUSED
            tokens.append(f"[PAD{i}]")
        types.append(kind)
    if twice := len(tokens) - len(set(tokens)):
        raise UserError(f"{twice} tokens of the tokenizer have the text of another; {_REMEDY}")
    return tokens, types


def _stop(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    stop, vocabulary = stop_token_ids(tokenizer), tokenizer.get_vocab()
    eos = tokenizer.eos_token_id
    first = eos if isinstance(eos, int) else document_token_id(tokenizer)
    turn = next((vocabulary[t] for t in TURN_END_TOKENS if vocabulary.get(t) in stop), first)
    return [first, turn, *(token for token in stop if token not in (first, turn))]

"""What `lora.trainable_tokens` names -> token ids.

Takes the setting, the folder of the base and its tokenizer; knows no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.models.adapters.lora import LoraConfig
from mengya.tokenizer.added import read_added
from mengya.tokenizer.load import encode_texts


def find_ids(
    config: LoraConfig, folder: Path, tokenizer: PreTrainedTokenizerFast, vocab_size: int
) -> list[int]:
    """The ids that are trained, ascending, each once.

    Args:
        folder: of the base, which may say what `mengya extend` added.
        vocab_size: how many rows the base has.

    Raises:
        UserError: nothing is known of added tokens; a text that is not one token; an id without a row.
    """
    wanted = config.trainable_tokens
    if wanted is None:
        return []
    if wanted == "added":
        added = read_added(folder)
        if added is None:
            raise _not_known(folder, len(tokenizer) - 1)
        return sorted(added.ids)
    return sorted({_id(token, tokenizer, vocab_size, folder) for token in wanted})


def planned_ids(config: LoraConfig, folder: Path, vocab_size: int) -> Sequence[int]:
    """As many ids as `find_ids` would give, for a plan, which reads no tokenizer; none where the base, whose
    added tokens are wanted, is not there yet."""
    wanted = config.trainable_tokens
    if wanted is None:
        return []
    if wanted == "added":
        added = read_added(folder)
        if added is None and folder.is_dir():
            raise _not_known(folder, vocab_size - 1)
        return [] if added is None else added.ids
    return range(vocab_size - min(len(set(wanted)), vocab_size), vocab_size)


def _not_known(folder: Path, last: int) -> UserError:
    return UserError(
        f"lora.trainable_tokens=added: {folder} does not say which tokens were added to it (`mengya extend` "
        "notes them: it was extended by other means or an earlier version, or not at all); name them by "
        f"text or id, for example the last one: write lora.trainable_tokens=[{last}], or null for none"
    )


def _id(token: int | str, tokenizer: PreTrainedTokenizerFast, vocab_size: int, folder: Path) -> int:
    if isinstance(token, int):
        if not 0 <= token < vocab_size:
            raise UserError(
                f"lora.trainable_tokens: {token} is no id of {folder}, whose ids are 0 to {vocab_size - 1}"
            )
        return token
    known = tokenizer.get_vocab().get(token)
    if known is not None:
        return known
    [ids] = encode_texts(tokenizer, [token])
    if len(ids) != 1:
        raise UserError(
            f"lora.trainable_tokens: {token!r} is {len(ids)} tokens of {folder}, not one; make it one first: "
            f"mengya extend {folder} out=FOLDER tokens='[\"{token}\"]', then init_from=FOLDER"
        )
    return ids[0]

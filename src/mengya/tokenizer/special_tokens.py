"""The special tokens of every tokenizer that we make, and the step from a backend to a folder's tokenizer.

A backend is a `tokenizers.Tokenizer` that knows a vocabulary; here it gets the tokens that chats need, our
chat template and the roles of transformers (bos, eos, pad, unk). Knows no training and no files.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from mengya.tokenizer.template import CHAT_TEMPLATE

DOCUMENT_TOKEN = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
PAD_TOKEN = "<|pad|>"
# Ids follow this order. `special` tokens vanish when decoding with skip_special_tokens; thinking
# and tool tags stay visible, for the programs that parse them out of a reply.
CONTROL_TOKENS = (DOCUMENT_TOKEN, TURN_START, TURN_END, PAD_TOKEN)
TAG_TOKENS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
RESERVED_TOKENS = tuple(f"<|reserved_{i}|>" for i in range(6))
ALL_SPECIAL = CONTROL_TOKENS + TAG_TOKENS + RESERVED_TOKENS


def chat_tokenizer(
    backend: Tokenizer,
    *,
    reserved: bool = True,
    more_special: Sequence[str] = (),
    bos_token: str = DOCUMENT_TOKEN,
    unk_token: str | None = None,
) -> PreTrainedTokenizerFast:
    """The backend with the special tokens (after its vocabulary, where it lacks them) and our template.

    Args:
        reserved: whether it gets the reserved tokens too.
        more_special: control tokens of its own, such as `<s>`.
        bos_token: what opens and closes a document.
    """
    control = (*more_special, *CONTROL_TOKENS, *(RESERVED_TOKENS if reserved else ()))
    known = backend.get_vocab(with_added_tokens=True)
    # Tokens that the vocabulary lacks come after it in the order of ALL_SPECIAL, whatever their kind.
    new = [token for token in (*control, *TAG_TOKENS) if token not in known]
    for token in sorted(new, key=(*more_special, *ALL_SPECIAL).index):
        _add(backend, token)
    for token in (*control, *TAG_TOKENS):
        if token in known:
            _add(backend, token)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos_token,
        eos_token=TURN_END,
        pad_token=PAD_TOKEN,
        **({} if unk_token is None else {"unk_token": unk_token}),
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _add(backend: Tokenizer, token: str) -> None:
    if token in TAG_TOKENS:
        backend.add_tokens([AddedToken(token, normalized=False, special=False)])
    else:
        backend.add_special_tokens([AddedToken(token, normalized=False, special=True)])

"""Texts or token ids of a request -> the ids that the model sees, for completions and embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from mengya.serving.errors import ApiError
from mengya.serving.runtime.service import Service
from mengya.tokenizer.load import document_token_id, encode_texts


@dataclass(frozen=True, slots=True)
class Prompt:
    """The ids that the model sees; the first `hidden` of them are not the client's."""

    ids: tuple[int, ...]
    hidden: int = 0


def read_inputs(
    service: Service, value: str | list[str] | list[int] | list[list[int]]
) -> list[Prompt]:
    """The ids of one or many texts (each begins a document) or lists of ids (taken as they are).

    Raises:
        ApiError: an empty list of ids, or ids that the model does not have.
    """
    served = service.served()
    if isinstance(value, str):
        value = [value]
    if isinstance(value[0], str):
        opening = document_token_id(served.tokenizer)
        texts = [text for text in value if isinstance(text, str)]
        return [Prompt((opening, *ids), 1) for ids in encode_texts(served.tokenizer, texts)]
    ids = [i for i in value if isinstance(i, int)]
    lists = [ids] if ids else [one for one in value if isinstance(one, list)]
    prompts = [Prompt(tuple(one)) for one in lists]
    vocab_size = served.model.config.vocab_size
    for prompt in prompts:
        if not prompt.ids:
            raise ApiError(400, "a list of token ids is empty", code="invalid_value")
        if wrong := next((i for i in prompt.ids if not 0 <= i < vocab_size), None):
            raise ApiError(400, f"token id {wrong} is not one of the model's {vocab_size}")
    return prompts

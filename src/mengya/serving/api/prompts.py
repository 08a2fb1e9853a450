"""Texts or token ids of a request -> the ids that the model sees, and how many tokens may follow them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from mengya.errors import UserError
from mengya.serving.runtime.served import Served
from mengya.tokenizer.load import document_token_id, encode_texts
from mengya.web.errors import ApiError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The ids that the model sees; the first `hidden` of them are not the client's."""

    ids: tuple[int, ...]
    hidden: int = 0


async def prepare(work: Callable[[], T]) -> T:
    """Run `work` (templates, tokenizing, compiling a schema) in a thread, so that streams are not held up.

    Raises:
        ApiError: 400 for what it finds wrong with the request.
    """
    try:
        return await asyncio.to_thread(work)
    except UserError as error:
        raise ApiError(400, str(error), code="invalid_value") from error
    except RecursionError as error:
        raise ApiError(400, "the request is nested too deeply") from error
    except UnicodeError as error:
        raise ApiError(400, "a text of the request is no valid Unicode") from error


def read_prompts(
    served: Served, value: str | list[str] | list[int] | list[list[int]], param: str
) -> list[Prompt]:
    """The ids of one or many texts (each begins a document) or lists of ids (taken as they are).

    Args:
        param: the request's field that holds them.

    Raises:
        ApiError: an empty list of ids, or ids that the model does not have.
    """
    if isinstance(value, str):
        value = [value]
    if isinstance(value[0], str):
        opening = document_token_id(served.tokenizer)
        texts = [text for text in value if isinstance(text, str)]
        return [Prompt((opening, *ids), 1) for ids in encode_texts(served.tokenizer, texts)]
    ids = [i for i in value if isinstance(i, int)]
    lists = [ids] if ids else [one for one in value if isinstance(one, list)]
    prompts = [Prompt(tuple(one)) for one in lists]
    for prompt in prompts:
        if not prompt.ids:
            raise ApiError(400, "a list of token ids is empty", param=param, code="invalid_value")
        check_ids(served, prompt.ids, param)
    return prompts


def check_ids(served: Served, ids: Iterable[int], param: str) -> None:
    """Whether all ids are those of tokens.

    Raises:
        ApiError: one is not; it was sent in the field `param`.
    """
    vocab_size = served.model.config.vocab_size
    for token in ids:
        if not 0 <= token < vocab_size:
            raise ApiError(
                400,
                f"token id {token} is not one of the model's, which are 0 to {vocab_size - 1}",
                param=param,
                code="invalid_value",
            )


def max_new_tokens(
    context: int, prompt_tokens: int, asked: int | None, param: str, clamp: bool
) -> int:
    """How many tokens a completion may have.

    Args:
        context: most tokens of prompt and completion together.
        asked: None for as many as the context allows.
        param: the request's field that holds `asked`.
        clamp: give what room there is when more was asked for.

    Raises:
        ApiError: 400 when prompt and completion do not fit into the context.
    """
    room = context - prompt_tokens
    if clamp and room > 0:
        asked = None if asked is None else min(asked, room)
    if room < 1 or (asked or 0) > room:
        wish = f" and {asked} more were asked for ({param})" if asked and room > 0 else ""
        remedy = "shorten it"
        if wish:
            remedy = (
                f"ask for {room} at most, or -1; or start the server with clamp_max_tokens=true"
            )
        raise ApiError(
            400,
            f"the model's context is {context} tokens; the prompt has {prompt_tokens}{wish}: "
            f"{remedy}",
            param=param if wish else None,
            code="context_length_exceeded",
        )
    return room if asked is None else asked

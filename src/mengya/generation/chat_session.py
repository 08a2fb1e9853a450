"""A conversation with a model: text in, text out in pieces, the KV cache kept between turns.

Takes a model and a tokenizer; knows the chat template through the tokenizer package only. Each reply
reuses the keys and values of the longest prefix that its prompt shares with the last one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.generation.engine import stream
from mengya.generation.sampling import SamplingParams
from mengya.generation.text_completion import Start, completion_pieces, document_starts, heal
from mengya.models.cache.kv import KVCache
from mengya.models.causal_lm import CausalLM
from mengya.tokenizer.chat_template import encode_prompt
from mengya.tokenizer.load import stop_token_ids
from mengya.tokenizer.message import Message


class ChatSession:
    """Turns of one conversation, or completions of plain text for a base model.

    Attributes:
        params: sampling settings; may be replaced between turns.
        messages: the conversation so far, in the template's form.
        notice: what the last `reply` or `complete` had to leave out, empty when nothing.
    """

    def __init__(
        self,
        model: CausalLM,
        tokenizer: PreTrainedTokenizerFast,
        params: SamplingParams,
        *,
        system: str | None = None,
        tools: list[dict[str, Any]] | None = None,
        enable_thinking: bool | None = None,
        make_cache: Callable[[], KVCache] | None = None,
    ) -> None:
        self.params = params
        self.notice = ""
        self._model = model
        self._tokenizer = tokenizer
        self._tools = tools
        self._enable_thinking = enable_thinking
        self._make_cache = make_cache or (lambda: KVCache(model.config.num_hidden_layers))
        self._stop = frozenset(stop_token_ids(tokenizer))
        self._opening: list[Message] = [{"role": "system", "content": system}] if system else []
        self.messages = list(self._opening)
        self._cache = self._make_cache()
        self._cached_ids: list[int] = []

    def reset(self) -> None:
        """Forget the conversation; the system message stays."""
        self.messages = list(self._opening)
        self.notice = ""
        self._cache = self._make_cache()
        self._cached_ids = []

    def reply(self, text: str) -> Generator[str, None, None]:
        """Send `text` and get the answer in pieces (complete characters, never empty).

        Leaving the iterator early keeps what was generated so far as the answer.

        Raises:
            UserError: at once, when `text` alone does not fit into the context; the conversation is
                as before.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        messages, prompt = self._fitted(asked)
        self.messages = messages
        return self._answer(prompt)

    def complete(self, text: str) -> Generator[str, None, None]:
        """Continue `text` as a document, for a base model; no turns, no template, no memory.

        When it is longer than the context, its beginning is left out and `notice` says so.
        """
        (prompt,) = document_starts(self._tokenizer, [text])
        room = max(self._room() - 1, 1)
        self.notice = ""
        if len(prompt) - 1 > room:
            self.notice = (
                f"only the last {room} of {len(prompt) - 1} tokens fit into the model's context"
            )
            prompt[1:] = prompt[-room:]
        return self._pieces(heal(self._model, self._tokenizer, prompt, self.params))

    def _answer(self, prompt: list[int]) -> Generator[str, None, None]:
        pieces: list[str] = []
        try:
            for piece in self._pieces(Start(prompt)):
                pieces.append(piece)
                yield piece
        finally:
            self.messages.append({"role": "assistant", "content": "".join(pieces)})

    def _pieces(self, start: Start) -> Generator[str, None, None]:
        prompt = start.ids
        common = _common_length(self._cached_ids, prompt)
        # At least one token must run to give the first logits.
        self._cache.crop(min(common, len(prompt) - 1))
        produced: list[int] = []

        def tokens() -> Iterator[int]:
            for token in stream(self._model, prompt, self.params, self._stop, self._cache):
                produced.append(token)
                yield token

        try:
            yield from completion_pieces(self._tokenizer, start, tokens())
        finally:
            self._cached_ids = [*prompt, *produced][: self._cache.seen]

    def _fitted(self, messages: list[Message]) -> tuple[list[Message], list[int]]:
        """Messages without the oldest turns that leave no room for an answer, and their ids."""
        opening, turns = self._opening, messages[len(self._opening) :]
        dropped = 0
        while True:
            kept = [*opening, *turns]
            prompt = encode_prompt(self._tokenizer, kept, self._tools, self._enable_thinking)
            if len(prompt) <= self._room():
                break
            starts = [i for i, message in enumerate(turns) if message["role"] == "user"]
            if len(starts) == 1:
                raise UserError(
                    f"the message makes a prompt of {len(prompt)} tokens, the model's context has "
                    f"room for {self._room()}; shorten it"
                )
            turns = turns[starts[1] :]
            dropped += 1
        self.notice = ""
        if dropped:
            what = "turn was" if dropped == 1 else f"{dropped} turns were"
            self.notice = f"the model's context is full: the oldest {what} dropped"
        return kept, prompt

    def _room(self) -> int:
        """Longest prompt that leaves space for an answer: a quarter of the context at most."""
        if self._cache.bounded:
            return sys.maxsize  # the cache drops old tokens by itself
        context = self._model.config.context_length
        return context - min(self.params.max_new_tokens, max(context // 4, 1))


def _common_length(a: list[int], b: list[int]) -> int:
    """How many ids at the beginning are the same."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))

"""One text completion in OpenAI's form: the echoed prompt, the text, its log-probabilities.

Takes a `Choice` and its events; gives `CompletionChoice`s that joined are the complete answer.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import NamedTuple

from mengya.generation.batch.engine import TokenEvent
from mengya.serving.api.prompts import Prompt
from mengya.serving.api.protocol import CompletionRequest
from mengya.serving.api.responses import CompletionChoice, CompletionLogprobs
from mengya.serving.runtime.choice import Choice, Finish
from mengya.tokenizer.token_text import TokenText


class _Token(NamedTuple):
    """A token, where its text begins, its log-probability (None: nothing predicts it), the likeliest."""

    offset: int
    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]


class _Echo:
    """The prompt given back before a completion: its text, and its tokens if asked for."""

    def __init__(self, prompt: Prompt, tokens: TokenText) -> None:
        self._shown = prompt.ids[prompt.hidden :]
        self._hidden = prompt.hidden
        raw = b"".join(tokens.bytes(token) for token in self._shown)
        self.text = raw.decode(errors="replace")
        self._tokens = tokens

    def tokens(self, first: TokenEvent) -> list[_Token]:
        """The prompt's tokens, as far as the client sees them."""
        decoder, offset = getincrementaldecoder("utf-8")("replace"), 0
        found = []
        logprobs = (first.prompt_logprobs or ())[self._hidden :]
        for token, one in zip(self._shown, logprobs, strict=True):
            found.append(_Token(offset, token, *(one or (None, ()))))
            offset += len(decoder.decode(self._tokens.bytes(token)))
        return found


class CompletionReply:
    """One completion as API objects: the echo first, then its pieces."""

    def __init__(
        self,
        request: CompletionRequest,
        choice: Choice,
        prompt: Prompt,
        place: int,
        tokens: TokenText,
    ) -> None:
        self._choice = choice
        self._request, self._place, self._tokens = request, place, tokens
        self._echo = _Echo(prompt, self._tokens) if request.echo else None
        self._offset = len(self._echo.text) if self._echo else 0

    @property
    def finish(self) -> Finish | None:
        """Why the completion ended, None while it runs."""
        return self._choice.finish

    def push(self, token_event: TokenEvent, /) -> CompletionChoice | None:
        """The choice with what became certain; None when nothing did."""
        piece = self._choice.push(token_event)
        echo, self._echo = self._echo, None
        text = (echo.text if echo else "") + piece.content
        if not text and piece.finish is None:
            return None
        logprobs = None
        if self._request.logprobs is not None:
            chosen = [
                _Token(self._offset + one.offset, one.token, one.logprob, one.top)
                for one in piece.tokens
            ]
            logprobs = self._logprobs([*(echo.tokens(token_event) if echo else []), *chosen])
        finish = None if piece.finish is None else "length" if piece.finish == "length" else "stop"
        return CompletionChoice(
            index=self._place, text=text, logprobs=logprobs, finish_reason=finish
        )

    def _logprobs(self, tokens: list[_Token]) -> CompletionLogprobs:
        name = self._tokens.named
        top_logprobs = [
            None
            if one.logprob is None
            else {**{name(token): value for token, value in one.top}, name(one.token): one.logprob}
            for one in tokens
        ]
        return CompletionLogprobs(
            tokens=[name(one.token) for one in tokens],
            token_logprobs=[one.logprob for one in tokens],
            top_logprobs=top_logprobs,
            text_offset=[one.offset for one in tokens],
        )


def joined(
    before: CompletionChoice | None, after: CompletionChoice | None
) -> CompletionChoice | None:
    """Two pieces of one choice as one."""
    if before is None or after is None:
        return after or before
    if before.logprobs and after.logprobs:
        for name in CompletionLogprobs.model_fields:
            getattr(before.logprobs, name).extend(getattr(after.logprobs, name))
    before.text += after.text
    before.finish_reason = after.finish_reason
    return before

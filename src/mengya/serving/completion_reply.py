"""One text completion in OpenAI's words: the prompt given back, the text, its log-probabilities.

Takes a `Choice` and its events; gives `CompletionChoice`s that joined are the whole answer.
"""

from __future__ import annotations

from mengya.generation.batch_engine import TokenEvent
from mengya.serving.choice import Choice, ChosenToken
from mengya.serving.inputs import Prompt
from mengya.serving.protocol import CompletionRequest
from mengya.serving.responses import CompletionChoice, CompletionLogprobs
from mengya.serving.token_text import TokenText


class _Echo:
    """The prompt given back before a completion: its text, and its tokens where those were asked for."""

    def __init__(self, prompt: Prompt, tokens: TokenText) -> None:
        self._shown = prompt.ids[prompt.hidden :]
        self._hidden = prompt.hidden
        raw = b"".join(tokens.bytes(token) for token in self._shown)
        self.text = raw.decode(errors="replace")
        self._tokens = tokens

    def logprobs(self, first: TokenEvent) -> list[tuple[str, float | None, dict | None]]:
        """(token, logprob, likeliest) of the prompt's tokens; None for what nothing predicts."""
        told = first.prompt_logprobs or ()
        rows = []
        for token, told_one in zip(self._shown, told[self._hidden :], strict=True):
            name = self._tokens.named(token)
            if told_one is None:
                rows.append((name, None, None))
                continue
            logprob, top = told_one
            likeliest = {self._tokens.named(t): value for t, value in top}
            rows.append((name, logprob, {**likeliest, name: logprob}))
        return rows


class CompletionReply:
    """Tells one completion: the echo first, then its pieces."""

    def __init__(
        self,
        request: CompletionRequest,
        choice: Choice,
        prompt: Prompt,
        place: int,
        tokens: TokenText,
    ) -> None:
        self.choice = choice
        self._request, self._place, self._tokens = request, place, tokens
        self._echo = _Echo(prompt, self._tokens) if request.echo else None
        self._offset = len(self._echo.text) if self._echo else 0

    def push(self, token_event: TokenEvent) -> CompletionChoice | None:
        """The choice with what became certain; None when nothing did."""
        piece = self.choice.push(token_event)
        echo, self._echo = self._echo, None
        text = (echo.text if echo else "") + piece.content
        if not text and piece.finish is None:
            return None
        logprobs = None
        if self._request.logprobs is not None:
            logprobs = self._logprobs(echo.logprobs(token_event) if echo else [], piece.tokens)
        finish = None if piece.finish is None else "length" if piece.finish == "length" else "stop"
        return CompletionChoice(
            index=self._place, text=text, logprobs=logprobs, finish_reason=finish
        )

    def _logprobs(
        self,
        echoed: list[tuple[str, float | None, dict | None]],
        chosen: list[ChosenToken],
    ) -> CompletionLogprobs:
        told = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        offset = 0
        for name, logprob, top in echoed:
            told.tokens.append(name)
            told.token_logprobs.append(logprob)
            told.top_logprobs.append(top)
            told.text_offset.append(min(offset, self._offset))
            offset += 0 if name.startswith("bytes:") else len(name)
        for token in chosen:
            name = self._tokens.named(token.token)
            told.tokens.append(name)
            told.token_logprobs.append(token.logprob)
            likeliest = {self._tokens.named(t): value for t, value in token.top}
            told.top_logprobs.append({**likeliest, name: token.logprob})
            told.text_offset.append(self._offset + token.offset)
        return told


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

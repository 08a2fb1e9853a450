"""A request inside the batch engine: its tokens, its pages, its row."""

from __future__ import annotations

from dataclasses import dataclass, field

from mengya.generation.batch.request import FinishReason, Request, TokenEvent, TokenLogprob


@dataclass(slots=True, eq=False)
class SequenceState:
    """The state of one request.

    Attributes:
        limit: how long it may become.
        seed: of its random numbers.
        tokens: prompt and completion as far as the host knows them.
        length: the same count, and one more while a chosen token is still on the device.
        pending_index: the index in `PendingTokens` of its token that is, or was last, in flight.
        row: its row in the tables of the engine while it runs, -1 before and after.
        stored: tokens whose keys and values lie in `pages`.
        published: those of them whose pages other prompts may find.
        cached_tokens: prompt tokens reused when it first ran; None: it has not yet.
        echoed: log-probabilities of the prompt's tokens as far as they are known.
        finished: no more events come of it.
    """

    number: int
    request: Request
    limit: int
    seed: int
    tokens: list[int]
    length: int
    pending_index: int = -1
    row: int = -1
    pages: list[int] = field(default_factory=list)
    stored: int = 0
    published: int = 0
    page_keys: list[bytes] = field(default_factory=list)
    cached_tokens: int | None = None
    echoed: list[TokenLogprob | None] = field(default_factory=lambda: [None])
    finished: bool = False

    @property
    def echoing(self) -> bool:
        """Whether log-probabilities of the prompt are still to be computed."""
        return self.request.echo_logprobs and len(self.echoed) < len(self.request.prompt)

    def event(
        self,
        token: int | None,
        logprob: TokenLogprob | None = None,
        finish: FinishReason | None = None,
    ) -> TokenEvent:
        """The event of `token`, the last of `tokens`, or of an end without one."""
        request, cached = self.request, self.cached_tokens or 0
        if logprob is None and not request.echo_logprobs:
            return TokenEvent(self.number, token, None, (), finish, cached)
        own, top = logprob or (None, ())
        first = len(self.tokens) == len(request.prompt) + (token is not None)
        echoed = first and request.echo_logprobs and not self.echoing
        return TokenEvent(
            self.number, token, own, top[: request.top_logprobs], finish, cached,
            tuple(self.echoed) if echoed else None,
        )  # fmt: skip

"""A request on its way through the batch engine: its tokens, its pages, its random numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from mengya.generation.request import FinishReason, Request, TokenEvent, TokenLogprob
from mengya.generation.sampling import History


@dataclass(slots=True, eq=False)
class Sequence:
    """A request on its way.

    Attributes:
        tokens: prompt and completion so far.
        limit: how long `tokens` may become.
        sampling_key: the same for requests whose next tokens can be chosen together.
        stored: tokens whose keys and values lie in `pages`.
        cached_tokens: prompt tokens reused when it first ran; None: it has not yet.
        echoed: log-probabilities of the prompt's tokens as far as they are known.
    """

    number: int
    request: Request
    limit: int
    sampling_key: str
    generator: torch.Generator
    history: History | None
    tokens: list[int]
    pages: list[int] = field(default_factory=list)
    stored: int = 0
    page_keys: list[bytes] = field(default_factory=list)
    cached_tokens: int | None = None
    echoed: list[TokenLogprob | None] = field(default_factory=lambda: [None])

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one can be chosen; 1 when decoding."""
        return len(self.tokens) - self.stored

    @property
    def echoing(self) -> bool:
        """Whether log-probabilities of the prompt are still to be found out."""
        return self.request.echo_logprobs and len(self.echoed) < len(self.request.prompt)

    def event(
        self,
        token: int | None,
        logprob: TokenLogprob | None = None,
        finish: FinishReason | None = None,
    ) -> TokenEvent:
        """What to tell about `token`, the last of `tokens`, or about an end without one."""
        request = self.request
        first = len(self.tokens) == len(request.prompt) + (token is not None)
        echoed = first and request.echo_logprobs and not self.echoing
        return TokenEvent(
            request_id=self.number,
            token=token,
            logprob=logprob[0] if logprob else None,
            top=logprob[1][: request.top_logprobs] if logprob else (),
            finish=finish,
            cached_tokens=self.cached_tokens or 0,
            prompt_logprobs=tuple(self.echoed) if echoed else None,
        )

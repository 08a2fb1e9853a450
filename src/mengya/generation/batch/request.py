"""What goes into the batch engine and what comes out: settings, requests, events.

Token ids only; knows nothing of text, HTTP or how the engine works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from pydantic import Field, PositiveInt
from torch import Tensor

from mengya.config import Config
from mengya.generation.sampling import SamplingParams

FinishReason = Literal["stop", "length", "cancelled"]
TokenLogprob = tuple[float, tuple[tuple[int, float], ...]]
"""Log-probability of a token, and (id, log-probability) of the likeliest tokens in its place."""


class EngineFull(Exception):
    """The waiting queue is full; the client should try again later."""


class EngineConfig(Config):
    """How many requests run at once and how much memory they share."""

    max_running: int = Field(default=64, ge=1, le=4096)
    """Most requests decoded in one batch."""
    max_waiting: int = Field(default=256, ge=1)
    """With so many requests in the waiting queue no more are taken; what is sent together is taken
    or refused together."""
    page_size: int = Field(default=16, ge=1, le=1024)
    """Tokens in one page of the KV memory. Prefixes are shared page by page."""
    cache_tokens: PositiveInt | None = None
    """Tokens that the KV memory holds, over all requests; null: max_running full contexts, or as many
    as fit into half of the GPU's free memory or 2 GiB of a CPU's."""
    prefill_chunk: PositiveInt | None = None
    """Most prompt tokens in one step, so that long prompts do not stall the running streams: half for the
    prompt that came first, the rest for the shortest ones; null: 128 on a CPU, 4096 elsewhere."""
    pack_weights: bool = True
    """In fp32 on a CPU: a second copy of the weights, in a layout that decodes faster. Not with adapters."""
    cuda_graphs: bool = True
    """On CUDA: decode by recorded graphs, one for each of some batch sizes. Without adapters only; recording
    takes seconds at the start and some memory."""
    overlap: bool | None = None
    """Launch a step before the tokens of the last one are on the host; null: on CUDA."""
    prefix_reuse: bool = True
    """Keep pages of finished requests, while memory allows, for prompts with the same prefix."""


class TokenFilter(Protocol):
    """A grammar that follows one completion."""

    @property
    def failure(self) -> str | None:
        """Why it could not follow to the end, so that the completion ended early; None: it could."""
        ...

    @property
    def finished(self) -> bool:
        """Nothing may follow: the completion ends with "stop"."""
        ...

    def fill(self, allowed_V: Tensor) -> None:
        """Set every entry of a bool tensor on the CPU: which tokens may come next (stop tokens too)."""
        ...

    def accept(self, token: int) -> None:
        """Advance by `token`, which was allowed. Not called for stop tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to make.

    Attributes:
        stop_token_ids: end the completion; not given out.
        top_logprobs: None: no log-probabilities; n: that of each chosen token and of the n likeliest.
            They are the model's own, before bias, penalties, temperature and grammar.
        adapter: LoRA adapter by the name that the engine's `select_adapter` knows; None: the base.
        echo_logprobs: also those of the prompt's tokens (the prompt is then always recomputed).
    """

    prompt: tuple[int, ...]
    params: SamplingParams
    stop_token_ids: frozenset[int] = frozenset()
    top_logprobs: int | None = None
    adapter: str | None = None
    grammar: TokenFilter | None = None
    echo_logprobs: bool = False


class TokenEvent(NamedTuple):
    """One token of a request, or its end, or both.

    Attributes:
        token: None when the event only ends the request.
        logprob, top: when `top_logprobs` asked for them, else None and empty.
        finish: set on the request's last event only.
        cached_tokens: prompt tokens that were not computed because an earlier request had done so.
        prompt_logprobs: with `echo_logprobs`, on the request's first event: one for each prompt
            token, None for the first, which nothing predicts.
    """

    request_id: int
    token: int | None
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    finish: FinishReason | None = None
    cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine at this moment, and counts since it began.

    Attributes:
        free_pages: pages that a request could get now; all of them when none runs.
        reusable_pages: those of them that hold a published prefix.
        prompt_tokens, cached_tokens: of all requests admitted; how many of them were reused.
        prefix_hits: requests that reused at least one page.
    """

    running: int
    waiting: int
    free_pages: int
    total_pages: int
    reusable_pages: int
    prefix_hits: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    preemptions: int
    steps: int

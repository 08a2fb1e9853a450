"""Running requests through a BatchEngine to their ends, and random requests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mengya.generation.batch.engine import (
    BatchEngine,
    Request,
    TokenEvent,
)
from mengya.generation.sampling import SamplingParams


@dataclass
class Outcome:
    """What one request got."""

    tokens: list[int] = field(default_factory=list)
    events: list[TokenEvent] = field(default_factory=list)

    @property
    def finish(self) -> str | None:
        return self.events[-1].finish


def run_all(engine: BatchEngine, requests: Sequence[Request], per_step: int = 0) -> list[Outcome]:
    """Outcomes in the order of the requests; `per_step` of them arrive with each step, 0: all at once."""
    outcomes: dict[int, Outcome] = {}
    left = list(requests)
    while left or engine.has_work:
        for request in left[: per_step or len(left)]:
            outcomes[engine.add(request)] = Outcome()
        del left[: per_step or len(left)]
        for event in engine.step():
            outcome = outcomes[event.request_id]
            assert not outcome.events or outcome.finish is None, "an event after the last one"
            outcome.events.append(event)
            if event.token is not None:
                outcome.tokens.append(event.token)
    assert all(outcome.finish for outcome in outcomes.values())
    stats = engine.stats
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.free_pages == stats.total_pages, "a page leaked"
    return list(outcomes.values())


LATENT = {
    "kv_lora_rank": 12, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 14,
    "qk_norm": False, "num_key_value_heads": 4,
}  # fmt: skip
GREEDY = SamplingParams(max_new_tokens=20, temperature=0)


def prompts(count: int, longest: int = 70, vocab_size: int = 300) -> list[tuple[int, ...]]:
    """Of 1 to `longest` random tokens."""
    rng = random.Random(count)
    return [
        tuple(rng.randrange(vocab_size) for _ in range(rng.randint(1, longest)))
        for _ in range(count)
    ]


def mixed_requests(count: int) -> list[Request]:
    """Greedy and sampled requests with every setting in turn."""
    settings: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 1.3, "top_p": 1, "seed": 1},
        {"temperature": 0.9, "top_p": 0.8, "seed": 2},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.95, "min_p": 0.02, "seed": 3},
        {"temperature": 0, "repetition_penalty": 1.3},
        {"temperature": 1, "presence_penalty": 1.0, "frequency_penalty": 0.5, "seed": 4},
        {"temperature": 1, "logit_bias": {5: 3.0}, "seed": 5},
    ]
    return [
        Request(
            prompt,
            SamplingParams(max_new_tokens=5 + 3 * (i % 7), **settings[i % len(settings)]),
            frozenset({i, 2 * i}),
            top_logprobs=i % 3 or None,
        )
        for i, prompt in enumerate(prompts(count))
    ]


def drain(engine: BatchEngine) -> None:
    while engine.has_work:
        engine.step()

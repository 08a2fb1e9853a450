"""Prompts that come together share the prompt tokens of a step: short ones soon, the first one always."""

from __future__ import annotations

import random

from mengya.generation.batch.engine import BatchEngine, EngineConfig, Request
from mengya.generation.batch.page_allocator import PageAllocator
from mengya.generation.batch.scheduler import Scheduler
from mengya.generation.batch.sequence import SequenceState
from mengya.generation.sampling import SamplingParams
from mengya.models.causal_lm import CausalLM
from tests.helpers.engine_batch import run_all

GREEDY = SamplingParams(max_new_tokens=3, temperature=0)
LONG = Request(tuple(range(100)), GREEDY)


def first_steps(engine: BatchEngine, arrivals: dict[int, list[Request]]) -> list[int]:
    """The step that gave the first token of each request, which comes before step `arrivals`."""
    ids: list[int] = []
    first: dict[int, int] = {}
    step = 0
    while engine.has_work or step <= max(arrivals):
        ids += [engine.add(request) for request in arrivals.get(step, [])]
        for event in engine.step():
            first.setdefault(event.request_id, step)
        step += 1
    return [first[number] for number in ids]


def test_a_short_prompt_does_not_wait_for_a_long_one(model: CausalLM) -> None:
    short = Request((7, 8, 9, 10), GREEDY)
    engine = BatchEngine(model, EngineConfig(prefill_chunk=8))
    long, *shorts = first_steps(engine, {0: [LONG], 2: [short], 5: [short, short]})
    # Two that come together share the half that the long one leaves: both are done in two steps.
    assert shorts == [2, 5, 6]
    # 100 tokens, less than eight in three steps: all that the short ones took.
    assert long == -(-(100 + 3 * 4) // 8) - 1


def test_newcomers_never_stop_the_prompt_that_came_first(model: CausalLM) -> None:
    newcomers = {step: [Request((step, 1, 2, 3), GREEDY)] for step in range(1, 80)}
    engine = BatchEngine(model, EngineConfig(prefill_chunk=8))
    long, *others = first_steps(engine, {0: [LONG], **newcomers})
    # Eight tokens in the first step, then half of each, and its last eight at once: it is as short as they.
    assert long == 22
    assert others == [*range(1, 22), 23, *range(23, 80)]


def test_neither_first_nor_short_is_served_when_the_first_is_done(model: CausalLM) -> None:
    newcomers = {step: [Request((step, 1, 2, 3), GREEDY)] for step in range(1, 80)}
    engine = BatchEngine(model, EngineConfig(prefill_chunk=8))
    second = Request(tuple(range(1, 101)), GREEDY)
    first, middle, *_ = first_steps(engine, {0: [LONG, second], **newcomers})
    assert first == 22
    assert first < middle <= first + 100 // 4


def test_equal_prompts_are_first_come_first_served(model: CausalLM) -> None:
    requests = [Request((n, *range(39)), GREEDY) for n in range(3)]
    engine = BatchEngine(model, EngineConfig(prefill_chunk=8, prefix_reuse=False))
    assert first_steps(engine, {0: requests}) == [4, 9, 14]


def test_a_prompt_in_shared_steps_says_what_it_says_alone(model: CausalLM) -> None:
    rng = random.Random(3)
    requests = [
        Request(
            tuple(rng.randrange(300) for _ in range(rng.choice((1, 4, 20, 110)))),
            SamplingParams(max_new_tokens=8, temperature=rng.choice((0, 1.1)), seed=n),
        )
        for n in range(12)
    ]
    engine = BatchEngine(model, EngineConfig(prefill_chunk=10, page_size=4))
    for request, outcome in zip(requests, run_all(engine, requests, per_step=2), strict=True):
        (alone,) = run_all(BatchEngine(model, EngineConfig()), [request])
        assert outcome.tokens == alone.tokens


def test_no_prompt_token_of_a_step_is_left_unused() -> None:
    """And the first has half, whatever the others are: sizes at random, nothing is computed."""
    rng = random.Random(0)
    for chunk in (1, 2, 7, 64):
        scheduler = Scheduler(PageAllocator(4000), 4, 20, chunk, reuse=False, context=1000)
        for number in range(300):
            prompt = (0,) * rng.choice((1, 2, 5, 30, 300))
            request = Request(prompt, SamplingParams(max_new_tokens=1))
            limit, length = len(prompt) + 1, len(prompt)
            scheduler.waiting.append(SequenceState(number, request, limit, 0, list(prompt), length))
        while scheduler.waiting or scheduler.running:
            work = scheduler.plan()
            pending = {s: s.length - s.stored for s in scheduler.running}
            counts = dict(zip(work.sequences, work.counts, strict=True))
            assert all(0 < counts[s] <= pending[s] for s in counts)
            decoding = [s for s in pending if pending[s] == 1]
            assert all(counts[s] == 1 for s in decoding)
            prefills = {s: n for s, n in pending.items() if n > 1}
            used = sum(counts.get(s, 0) for s in prefills)
            assert used == min(chunk, sum(prefills.values()))
            if prefills:
                oldest = next(iter(prefills))
                assert counts[oldest] >= min(prefills[oldest], chunk / 2)
            scheduler.advance(work)
            for sequence in work.ready:
                scheduler.remove(sequence)

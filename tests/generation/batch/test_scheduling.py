"""Chunks, shared pages, preemption, cancellation, fairness: none of it changes a token or loses a page."""

from __future__ import annotations

import random

import pytest

from mengya.generation.batch.engine import BatchEngine, EngineConfig, Request
from mengya.generation.batch.page_allocator import PageAllocator, page_key, root_key
from mengya.generation.sampling import SamplingParams
from mengya.models.causal_lm import CausalLM
from tests.helpers.engine_batch import drain, mixed_requests, run_all

GREEDY = SamplingParams(max_new_tokens=12, temperature=0)
SEEDED = SamplingParams(max_new_tokens=12, temperature=1.2, seed=4)


def tokens_of(engine: BatchEngine, requests: list[Request], per_step: int = 0) -> list[list[int]]:
    return [outcome.tokens for outcome in run_all(engine, requests, per_step)]


@pytest.mark.parametrize("chunk", [1, 5, 16])
def test_prompts_in_chunks_equal_full_prompts(model: CausalLM, chunk: int) -> None:
    requests = mixed_requests(14)
    full = tokens_of(BatchEngine(model, EngineConfig(prefill_chunk=4096)), requests)
    engine = BatchEngine(model, EngineConfig(prefill_chunk=chunk, page_size=8))
    assert tokens_of(engine, requests) == full


def test_a_long_prompt_does_not_stall_who_is_decoding(model: CausalLM) -> None:
    engine = BatchEngine(model, EngineConfig(prefill_chunk=8))
    first = engine.add(Request((1, 2), SamplingParams(max_new_tokens=40, temperature=0)))
    engine.step()
    engine.add(Request(tuple(range(100)), GREEDY))
    for _ in range(100 // 8):
        assert [event.request_id for event in engine.step()] == [first]
    assert len(engine.step()) == 2
    drain(engine)


def test_a_shared_beginning_is_computed_once(model: CausalLM) -> None:
    beginning = tuple(range(40))
    requests = [Request((*beginning, *range(60, 60 + n)), p) for n, p in ((3, GREEDY), (9, SEEDED))]
    requests.append(Request(beginning, GREEDY))
    apart = [tokens_of(BatchEngine(model, EngineConfig()), [r])[0] for r in requests]
    engine = BatchEngine(model, EngineConfig(page_size=8))
    outcomes = [run_all(engine, [r])[0] for r in requests]
    assert [o.tokens for o in outcomes] == apart
    # Full pages only, and never all of the prompt: its last token must run.
    assert [{e.cached_tokens for e in o.events} for o in outcomes] == [{0}, {40}, {32}]
    assert (engine.stats.prefix_hits, engine.stats.cached_tokens) == (2, 72)
    # The next turn of a conversation begins with prompt and answer of the last.
    turn = Request((*requests[0].prompt, *outcomes[0].tokens, 7), GREEDY)
    (answer,) = run_all(engine, [turn])
    assert answer.events[0].cached_tokens == 48
    assert answer.tokens == tokens_of(BatchEngine(model, EngineConfig()), [turn])[0]


def test_reuse_can_be_turned_off(model: CausalLM) -> None:
    engine = BatchEngine(model, EngineConfig(page_size=8, prefix_reuse=False))
    outcomes = run_all(engine, [Request(tuple(range(40)), GREEDY)] * 2, per_step=1)
    assert [o.events[0].cached_tokens for o in outcomes] == [0, 0]
    assert engine.stats.reusable_pages == 0


def test_echoed_prompts_are_computed_again(model: CausalLM) -> None:
    engine = BatchEngine(model, EngineConfig(page_size=8))
    asked = Request(tuple(range(40)), GREEDY, echo_logprobs=True)
    first, second = [run_all(engine, [asked])[0] for _ in range(2)]
    assert second.events[0].cached_tokens == 0
    assert first.events[0].prompt_logprobs == second.events[0].prompt_logprobs is not None


@pytest.mark.parametrize("overlap", [False, True])
def test_who_is_preempted_says_the_same(model: CausalLM, overlap: bool) -> None:
    requests = mixed_requests(20)
    roomy = BatchEngine(model, EngineConfig(page_size=4))
    expected = run_all(roomy, requests)
    assert roomy.stats.preemptions == 0
    settings = EngineConfig(page_size=4, cache_tokens=100, prefill_chunk=16, overlap=overlap)
    tight = BatchEngine(model, settings)
    got = run_all(tight, requests)
    assert [o.tokens for o in got] == [o.tokens for o in expected]
    assert tight.stats.preemptions > 2
    for outcome in got:
        assert len({event.cached_tokens for event in outcome.events}) == 1


def test_a_preempted_echo_is_complete(model: CausalLM) -> None:
    long = SamplingParams(max_new_tokens=60, temperature=0)
    requests = [
        Request((n, *range(50)), long, echo_logprobs=True, top_logprobs=1) for n in range(4)
    ]
    roomy = run_all(BatchEngine(model, EngineConfig()), requests)
    tight = BatchEngine(model, EngineConfig(page_size=4, cache_tokens=128, prefill_chunk=8))
    for a, b in zip(roomy, run_all(tight, requests), strict=True):
        one, other = a.events[0].prompt_logprobs, b.events[0].prompt_logprobs
        assert one is not None and other is not None and len(one) == len(other) == 51
        for x, y in zip(one[1:], other[1:], strict=True):
            assert x is not None and y is not None and abs(x[0] - y[0]) < 1e-4
    assert tight.stats.preemptions


def test_memory_smaller_than_the_context_ends_requests_by_length(model: CausalLM) -> None:
    engine = BatchEngine(model, EngineConfig(page_size=8, cache_tokens=40))
    assert engine.context == 40
    long = SamplingParams(max_new_tokens=100, temperature=0)
    outcomes = run_all(engine, [Request((1, 2, 3), long), Request((4,) * 39, long)])
    assert [(len(o.tokens), o.finish) for o in outcomes] == [(37, "length"), (1, "length")]


def test_first_come_first_served(model: CausalLM) -> None:
    """A small request never overtakes a big one that waits for pages."""
    engine = BatchEngine(model, EngineConfig(page_size=4, cache_tokens=128, prefix_reuse=False))
    engine.add(Request((1,) * 80, SamplingParams(max_new_tokens=8, temperature=0)))
    engine.step()
    big = engine.add(Request((2,) * 100, GREEDY))
    small = engine.add(Request((3,), GREEDY))
    first_step: dict[int, int] = {}
    while engine.has_work:
        for event in engine.step():
            first_step.setdefault(event.request_id, engine.stats.steps)
    assert 8 < first_step[big] <= first_step[small]


def test_a_cancelled_request_frees_its_pages_at_once(model: CausalLM) -> None:
    engine = BatchEngine(model, EngineConfig(max_running=2, page_size=4))
    ids = [engine.add(Request(tuple(range(30)), GREEDY)) for _ in range(3)]
    engine.step()
    assert engine.stats.free_pages < engine.stats.total_pages
    engine.cancel(ids[0])
    engine.cancel(ids[2])  # still waiting
    engine.cancel(ids[2])
    engine.cancel(999)
    assert (engine.stats.running, engine.stats.waiting) == (1, 0)
    events = engine.step()
    ended = [(e.request_id, e.token) for e in events if e.finish == "cancelled"]
    assert ended == [(ids[0], None), (ids[2], None)]
    engine.cancel(ids[1])
    assert engine.stats.free_pages == engine.stats.total_pages
    assert engine.has_work  # the last event is still to come
    assert [e.finish for e in engine.step()] == ["cancelled"]
    assert not engine.has_work and engine.step() == []


def test_adapters_take_turns_and_share_no_pages(model: CausalLM) -> None:
    """The adapter here turns the values of the first layer round."""
    layer = model.get_submodule("model.layers.0.self_attn.v_proj")
    weight = layer.get_parameter("weight")
    base = weight.detach().clone()
    turns: list[str | None] = []

    def select(adapter: str | None) -> None:
        turns.append(adapter)
        weight.data.copy_(base if adapter is None else -base)

    prompt = tuple(range(40))
    engine = BatchEngine(model, EngineConfig(page_size=8), select)
    plain = Request(prompt, GREEDY)
    turned = Request(prompt, GREEDY, adapter="minus")
    both = run_all(engine, [plain, turned, turned])
    assert turns[:5] == [None, "minus", None, "minus", None]
    assert both[0].tokens != both[1].tokens == both[2].tokens
    (alone,) = run_all(BatchEngine(model, EngineConfig(), select), [plain])
    assert alone.tokens == both[0].tokens
    assert all(o.events[0].cached_tokens == 0 for o in both)
    assert run_all(engine, [turned])[0].events[0].cached_tokens == 32


@pytest.mark.parametrize("overlap", [False, True])
def test_a_soak_of_random_requests_and_cancels_leaks_nothing(
    model: CausalLM, overlap: bool
) -> None:
    rng = random.Random(1)
    engine = BatchEngine(
        model,
        EngineConfig(
            max_running=12,
            max_waiting=400,
            page_size=4,
            cache_tokens=300,
            prefill_chunk=32,
            overlap=overlap,
        ),
        lambda adapter: None,
    )
    left, alive, finished = 300, set[int](), dict[int, str]()
    while left or engine.has_work:
        for _ in range(min(left, rng.randint(0, 6))):
            left -= 1
            begin = rng.choice(((), (9,) * 10, tuple(range(30))))
            prompt = (*begin, *(rng.randrange(300) for _ in range(rng.randint(1, 60))))
            params = SamplingParams(
                max_new_tokens=rng.randint(1, 25), temperature=rng.choice((0, 1)), seed=left
            )
            adapter = rng.choice((None, None, "a"))
            alive.add(engine.add(Request(prompt, params, frozenset({3, 4}), None, adapter)))
        if alive and rng.random() < 0.3:
            engine.cancel(rng.choice(sorted(alive)))
        for event in engine.step():
            assert event.request_id not in finished
            if event.finish:
                finished[event.request_id] = event.finish
                alive.remove(event.request_id)
    stats = engine.stats
    assert len(finished) == 300 and set(finished.values()) == {"stop", "length", "cancelled"}
    assert stats.preemptions and stats.prefix_hits
    assert (stats.running, stats.waiting, stats.free_pages) == (0, 0, stats.total_pages)


def test_pages_go_to_the_neediest_and_the_least_recently_used_goes_first() -> None:
    pages = PageAllocator(4)
    keys = [page_key(root_key(None), [n]) for n in range(4)]
    first = pages.allocate(2)
    assert first is not None and pages.allocate(3) is None and pages.free == 2
    for page, key in zip(first, keys, strict=False):
        pages.publish(page, key)
    pages.release(first)
    assert (pages.free, pages.reusable) == (4, 2)
    assert pages.find(keys[:1]) == first[:1] and pages.find([keys[3], keys[0]]) == []
    pages.release(first[:1])  # used again: now the other one is the older
    assert pages.allocate(3) is not None
    assert pages.find(keys[1:2]) == [] and pages.find(keys[:1]) == first[:1]
    with pytest.raises(ValueError, match="no owner"):
        pages.release([*first[:1], first[0]])


def test_page_keys_tell_adapters_and_all_earlier_tokens_apart() -> None:
    keys = {
        page_key(before, [1, 2])
        for before in (root_key(None), root_key("None"), page_key(root_key(None), [3, 4]))
    }
    assert len(keys) == 3

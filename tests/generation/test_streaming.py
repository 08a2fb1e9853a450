"""Completions and conversations longer than the model's context."""

from __future__ import annotations

from collections.abc import Callable

from transformers import PreTrainedTokenizerFast

from mengya.generation.chat_session import ChatSession
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.models.cache.streaming import StreamingCache, StreamingConfig
from mengya.models.causal_lm import CausalLM
from tests.helpers.random_model import small_model

SETTINGS = StreamingConfig(sinks=4, window=64)
GREEDY = SamplingParams(max_new_tokens=20, temperature=0)


def caches_of(model: CausalLM) -> Callable[[], StreamingCache]:
    return lambda: StreamingCache(model.config, SETTINGS)


def test_short_texts_are_completed_as_ever(model: CausalLM) -> None:
    prompts = [[5, 6, 7, 8], [9] * 20]
    plain = generate(model, prompts, GREEDY, [])
    assert generate(model, prompts, GREEDY, [], caches_of(model)) == plain


def test_prompt_and_completion_may_be_longer_than_the_context(model: CausalLM) -> None:
    assert model.config.context_length == 128
    longer = GREEDY.model_copy(update={"max_new_tokens": 150})
    completion, short = generate(model, [[*range(3, 203)], [7]], longer, [], caches_of(model))
    assert len(completion) == len(short) == 150
    # What went out of sight does not matter any more: only the sinks and the last tokens do.
    other = [*range(3, 7), *[250] * 100, *range(107, 203)]
    small = small_model(num_hidden_layers=1)
    (same,) = generate(small, [other], GREEDY, [], caches_of(small))
    (again,) = generate(small, [[*range(3, 203)]], GREEDY, [], caches_of(small))
    assert same == again


def test_a_conversation_never_drops_a_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    model = small_model()
    caches: list[StreamingCache] = []

    def make_cache() -> StreamingCache:
        caches.append(caches_of(model)())
        return caches[-1]

    session = ChatSession(model, tokenizer, GREEDY, make_cache=make_cache)
    for turn in range(6):
        "".join(session.reply("春眠不觉晓，处处闻啼鸟。"))
        assert session.notice == "" and len(session.messages) == 2 * (turn + 1)
    assert caches[-1].seen > 200 and caches[-1].length <= 4 + 64 + 8
    session.reset()
    assert caches[-1].seen == 0
    assert "".join(session.complete("花" * 300)) and session.notice == ""

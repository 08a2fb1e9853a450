"""Sequences that share pages and forward passes compute what each computes alone, without a cache."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from mengya.models.cache.kv import cache_bytes_per_token
from mengya.models.cache.paged import PagedCache, PagedStep
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from tests.helpers.oracle import assert_near
from tests.helpers.random_model import random_model, tiny_config

CPU = torch.device("cpu")


def step_of(cache: PagedCache, spans: list[tuple[list[int], int, int]]) -> PagedStep:
    """A step of (pages, tokens stored before, new tokens)."""
    width = max(len(pages) for pages, _, _ in spans)
    tables = np.array([pages + [0] * (width - len(pages)) for pages, _, _ in spans], dtype=np.int32)
    starts, counts = np.array([span[1:] for span in spans]).T
    return PagedStep.of(cache, tables, starts, counts)


@torch.inference_mode()
def test_rows_and_chunks_together_equal_plain_forwards(
    model: CausalLM, config: ModelConfig
) -> None:
    """Five sequences grow by random numbers of tokens a step, over pages in random order."""
    rng = random.Random(0)
    sequences = [[rng.randrange(config.vocab_size) for _ in range(n)] for n in (1, 5, 17, 40, 40)]
    cache = PagedCache(config, 60, 4, torch.float32, CPU)
    for layer in cache.layers:
        layer.fill_(1e4)  # stale numbers must never be seen
    free = rng.sample(range(60), 60)
    tables = [[free.pop() for _ in range(11)] for _ in sequences]
    done = [0] * len(sequences)
    logits: list[list[torch.Tensor]] = [[] for _ in sequences]
    seen_mixed = 0
    while any(d < len(s) for d, s in zip(done, sequences, strict=True)):
        counts = {
            i: min(rng.choice((1, 1, 3, 9)), len(s) - done[i])
            for i, s in enumerate(sequences)
            if done[i] < len(s) and rng.random() < 0.8
        }
        if not counts:
            continue
        order = sorted(counts, key=lambda i: counts[i] > 1)
        step = step_of(cache, [(tables[i], done[i], counts[i]) for i in order])
        ids = [t for i in order for t in sequences[i][done[i] : done[i] + counts[i]]]
        out = model.decode(torch.tensor([ids]), step)[0]
        for i, part in zip(order, out.split([counts[i] for i in order]), strict=True):
            logits[i].append(part)
            done[i] += counts[i]
        seen_mixed += len(set(counts.values())) > 1
    assert seen_mixed
    for sequence, parts in zip(sequences, logits, strict=True):
        assert_near(torch.cat(parts), model(torch.tensor([sequence])).head_output[0], 3e-5)


@torch.inference_mode()
def test_only_the_asked_positions_get_logits_and_shared_pages_are_read() -> None:
    config = tiny_config("Qwen3")
    model = random_model(config)
    cache = PagedCache(config, 8, 4, torch.float32, CPU)
    ids = [*range(10, 22)]
    model.decode(torch.tensor([ids[:8]]), step_of(cache, [([3, 1], 0, 8)]))
    # Two sequences continue from the same two full pages, each with a page of its own.
    step = step_of(cache, [([3, 1, 5], 8, 1), ([3, 1, 0], 8, 4)])
    assert step.position_ids.tolist() == [[8, 8, 9, 10, 11]]
    new = torch.tensor([[77, *ids[8:]]])
    out = model.decode(new, step, positions=torch.tensor([0, 4]))
    assert out.shape == (1, 2, config.vocab_size)
    assert_near(out[0, 0], model(torch.tensor([[*ids[:8], 77]])).head_output[0, -1], 3e-5)
    assert_near(out[0, 1], model(torch.tensor([ids])).head_output[0, -1], 3e-5)


@pytest.mark.parametrize("spans", [[([0], 0, 2), ([1], 0, 1)], [([0], 0, 0)]])
def test_spans_in_a_wrong_order_are_refused(spans: list[tuple[list[int], int, int]]) -> None:
    cache = PagedCache(tiny_config("Llama"), 4, 4, torch.float32, CPU)
    with pytest.raises(ValueError, match="of one new token come first"):
        step_of(cache, spans)


def test_bytes_per_token_is_what_the_memory_takes() -> None:
    config = tiny_config("Qwen2")
    cache = PagedCache(config, 3, 5, torch.bfloat16, CPU)
    assert sum(layer.nbytes for layer in cache.layers) == 15 * cache_bytes_per_token(
        config, torch.bfloat16
    )

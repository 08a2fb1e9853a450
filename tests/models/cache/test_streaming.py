"""The streaming cache: what stays visible, at which positions, in how much memory, how well it predicts."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mengya.errors import UserError
from mengya.models.cache.kv import KVCache
from mengya.models.cache.streaming import StreamingCache, StreamingConfig
from mengya.models.causal_lm import CausalLM
from tests.helpers.oracle import assert_near
from tests.helpers.random_model import random_model, tiny_config
from tests.helpers.rope_scalings import SCALINGS

SINKS, WINDOW, BLOCK = 3, 16, 2
HELD = SINKS + WINDOW + BLOCK
SETTINGS = StreamingConfig(sinks=SINKS, window=WINDOW)


def text(length: int) -> torch.Tensor:
    return torch.randint(101, (2, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(model: CausalLM, ids_BS: torch.Tensor, cache: KVCache) -> torch.Tensor:
    return torch.cat([model.decode(piece, cache) for piece in cache.pieces(ids_BS)], dim=1)


def in_sight(position: int) -> list[int]:
    """Places in the text that are seen from `position`, when tokens come one by one."""
    held: list[int] = []
    for t in range(position + 1):
        if len(held) == HELD:
            held = held[:SINKS] + held[SINKS + BLOCK :]
        held.append(t)
    return held


@torch.no_grad()
def test_short_texts_are_plain_attention(model: CausalLM, input_ids: torch.Tensor) -> None:
    cache = StreamingCache(model.config, SETTINGS)
    parts = [run(model, chunk, cache) for chunk in input_ids.split([9, *[1] * 11], dim=1)]
    assert_near(torch.cat(parts, 1), model(input_ids).head_output)


@torch.no_grad()
@pytest.mark.parametrize("scaling", ["default", "linear", "dynamic", "yarn"])
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("Qwen3", {}),
        (
            "Glm4Moe",
            {"first_k_dense_replace": 0, "rope_parameters": {"partial_rotary_factor": 0.5}},
        ),
        ("DeepseekV3 dense", {}),
    ],
)
def test_one_layer_sees_the_kept_tokens_as_if_they_were_the_text(
    family: str, changes: dict[str, Any], scaling: str
) -> None:
    """In one layer a key depends on its token alone, so the plain model on the kept tokens is the oracle."""
    rope = {**SCALINGS[scaling], **changes.get("rope_parameters", {})}
    model = random_model(
        tiny_config(family, num_hidden_layers=1, **{**changes, "rope_parameters": rope})
    )
    ids = text(70)
    cache = StreamingCache(model.config, SETTINGS)
    logits = run(model, ids[:, :30], cache)[:, -1:]
    for t in range(30, 70):
        logits = torch.cat((logits, run(model, ids[:, t : t + 1], cache)), 1)
        assert cache.length <= HELD and cache.seen == t + 1
    for t in (31, 40, 55, 69):
        kept = in_sight(t)
        assert kept[:SINKS] == [0, 1, 2] and t - WINDOW + 1 in kept
        assert_near(logits[:, t - 29], model(ids[:, kept]).head_output[:, -1], 3e-5)


@torch.no_grad()
def test_memory_is_bounded(model: CausalLM) -> None:
    cache = StreamingCache(model.config, SETTINGS)
    sizes = []
    for _ in range(20):
        run(model, text(25), cache)
        sizes.append(len(pickle.dumps(cache)))  # all that it holds, full storages
    token = 2 * model.config.num_key_value_heads * 4  # bytes at the very least; a counter has fewer
    assert max(sizes) - min(sizes) < token and cache.seen == 500 and cache.length <= HELD


@torch.no_grad()
def test_a_crop_keeps_what_it_can() -> None:
    model = random_model(tiny_config("Qwen3"))
    ids = text(60)
    cache = StreamingCache(model.config, SETTINGS)
    run(model, ids[:, :50], cache)
    full = cache.length
    cache.crop(49)
    assert (cache.seen, cache.length) == (49, full - 1)
    run(model, ids[:, 49:50], cache)
    again = StreamingCache(model.config, SETTINGS)
    run(model, ids[:, :50], again)
    assert_near(run(model, ids[:, 50:51], cache), run(model, ids[:, 50:51], again))
    cache.crop(20)  # older tokens that should be in sight are gone
    assert (cache.seen, cache.length) == (0, 0)
    assert_near(run(model, ids[:, :10], cache), model(ids[:, :10]).head_output)
    with pytest.raises(ValueError, match="cannot crop"):
        cache.crop(11)


def test_more_than_the_model_has_positions_for_is_refused() -> None:
    config = tiny_config("Qwen3")
    with pytest.raises(UserError, match=r"trained for 64; write streaming\.window=48 or less"):
        StreamingCache(config, StreamingConfig(sinks=10, window=64))
    StreamingCache(config, StreamingConfig(sinks=10, window=48))


def test_a_trained_model_continues_past_its_context() -> None:
    """Trained on repeating texts of 32 tokens: beyond, full attention is lost, streaming is not."""
    period, trained = 5, 32
    torch.manual_seed(0)
    model = CausalLM(
        tiny_config("Llama", vocab_size=12, max_position_embeddings=trained, rope_theta=100.0)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)

    def texts(rows: int, length: int) -> torch.Tensor:
        return torch.randint(12, (rows, period)).repeat(1, -(-length // period))[:, :length]

    for _ in range(250):
        ids = texts(16, trained)
        logits = model(ids).head_output[:, period:-1]
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, period + 1 :].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    ids = texts(8, 400)

    def nats(logits_BSV: torch.Tensor, places: slice) -> float:
        return F.cross_entropy(
            logits_BSV[:, places].flatten(0, 1), ids[:, 1:][:, places].flatten()
        ).item()

    cache = StreamingCache(model.config, StreamingConfig(sinks=4, window=16))
    streamed = torch.cat([run(model, ids[:, t : t + 1], cache) for t in range(399)], 1)
    with torch.no_grad():
        plain = model(ids[:, :-1]).head_output
    inside, beyond = slice(10, 22), slice(200, 399)
    guessing = math.log(12)
    # Nine runs (250 to 600 steps, three seeds) had at most 0.15 and 0.64, and at least 3.9.
    assert nats(plain, inside) < guessing / 6
    assert nats(streamed, beyond) < guessing / 2
    assert nats(plain, beyond) > guessing


def test_pieces_are_what_fits() -> None:
    model = random_model(tiny_config("Qwen3"))
    cache = StreamingCache(model.config, SETTINGS)
    sizes = []
    for piece in cache.pieces(text(40)):
        sizes.append(piece.shape[1])
        model.decode(piece, cache)
    assert sizes == [HELD, *itertools.repeat(BLOCK, (40 - HELD) // BLOCK), 1]
    with pytest.raises(ValueError, match="use pieces"):
        model.decode(text(10), cache)

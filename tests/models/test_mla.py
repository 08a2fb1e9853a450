"""Latent attention: what its cache holds, its two ways to attend, padding, gradients.

Logits, folders, scalings, causality and packed documents are in the tests of all families.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mengya.config import load_config
from mengya.errors import UserError
from mengya.models.cache.kv import KVCache, cache_bytes_per_token
from mengya.models.config.model import ModelConfig
from tests.helpers.oracle import assert_near, oracle_of
from tests.helpers.random_model import LATENT, random_model, tiny_config

FAMILIES = ["DeepseekV3", "DeepseekV3 dense"]
IDS = torch.randint(101, (3, 20), generator=torch.Generator().manual_seed(7))


class ExpandingCache(KVCache):
    """Makes keys and values of the latents for one new token, too."""

    def expandable_latents(self, layer: int, new_BSC: torch.Tensor) -> torch.Tensor:
        return self._update_latents(layer, new_BSC)[:, :, 0]


class CountingCache(KVCache):
    """Remembers how many numbers each layer handed over."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers)
        self.numbers = [0] * layers

    def update(
        self, layer: int, k_BSKD: torch.Tensor, v_BSKV: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.numbers[layer] += k_BSKD.numel() + v_BSKV.numel()
        return super().update(layer, k_BSKD, v_BSKV)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_holds_the_latent_and_the_rotary_key_alone(family: str) -> None:
    model = random_model(tiny_config(family))
    cache = CountingCache(2)
    for chunk in IDS.split([15, *[1] * 5], dim=1):
        model.decode(chunk, cache)
    assert cache.numbers == [3 * 20 * (12 + 6)] * 2  # rows * tokens * (rank + rotary width)
    assert cache_bytes_per_token(model.config) == 2 * (12 + 6) * 2
    same_heads = tiny_config("Llama", num_key_value_heads=4)
    assert cache_bytes_per_token(same_heads) == 2 * (2 * 4 * 16) * 2


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_absorbed_and_expanded_give_the_same(family: str) -> None:
    model = random_model(tiny_config(family))
    results = []
    for cache in (KVCache(2), ExpandingCache(2)):
        model.decode(IDS[:, :19], cache)
        results.append(model.decode(IDS[:, 19:], cache))
    assert_near(*results)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_left_padded_rows_equal_transformers(family: str) -> None:
    model = random_model(tiny_config(family))
    oracle = oracle_of(model)
    padding = torch.tensor([0, 4, 9])
    mask = (torch.arange(20) >= padding[:, None]).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = KVCache(2, left_padding=padding)
    parts = [model.decode(IDS[:, :14], cache)]
    parts += [model.decode(IDS[:, t : t + 1], cache) for t in range(14, 20)]
    theirs = oracle(IDS, attention_mask=mask, position_ids=positions).logits
    real = mask.bool()
    assert_near(torch.cat(parts, 1)[real], theirs[real])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_transformers(family: str) -> None:
    model = random_model(tiny_config(family, router_aux_loss_coef=0.0)).train()
    oracle: Any = oracle_of(model)
    for logits in (model(IDS).head_output, oracle(IDS).logits):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    theirs = dict(oracle.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert_near(parameter.grad, theirs[name].grad, 2e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"v_head_dim": None}, "needs v_head_dim"),
        ({"qk_rope_head_dim": 5}, "qk_rope_head_dim=5 is odd"),
        ({"num_key_value_heads": 2}, "set num_key_value_heads=8"),
        ({"head_dim": 16}, "head_dim=16 means nothing"),
        ({"qk_norm": True}, "set qk_norm=false"),
        ({"num_experts": 4, "moe_intermediate_size": 8}, "set scoring_func=sigmoid"),
        ({"kv_lora_rank": None, "num_key_value_heads": 8}, "belongs to latent attention"),
    ],
)
def test_impossible_latent_shapes_are_refused(changes: dict[str, Any], reason: str) -> None:
    values = {**LATENT, "num_key_value_heads": 8, **changes}
    overrides = [f"{name}={_json(value)}" for name, value in values.items()]
    with pytest.raises(UserError) as refused:
        load_config(ModelConfig, None, overrides)
    assert reason in str(refused.value)


def _json(value: Any) -> str:
    return {None: "null", True: "true", False: "false"}.get(value, str(value))

"""Random model configurations, small and odd: whatever a person may type."""

from __future__ import annotations

import random
from typing import Any


def random_values(seed: int) -> dict[str, Any]:
    """Fields of a `ModelConfig`, which may refuse them; every class and rope_type comes up."""
    draw = random.Random(seed)
    heads = draw.randint(1, 6)
    values: dict[str, Any] = {
        "vocab_size": draw.randint(5, 70), "hidden_size": draw.choice([16, 24, 30, 36, 40, 48]),
        "intermediate_size": draw.randint(4, 50), "num_hidden_layers": draw.randint(1, 3),
        "num_attention_heads": heads, "num_key_value_heads": draw.choice([1, heads, draw.randint(1, heads)]),
        "head_dim": draw.choice([None, None, 2, 4, 6, 8, 10, 16]),
        "max_position_embeddings": draw.choice([32, 64]), "rope_theta": draw.choice([1e4, 5e5, 123.0]),
        "tie_word_embeddings": draw.random() < 0.5, "qk_norm": draw.random() < 0.5,
        "attention_bias": draw.random() < 0.3, "rms_norm_eps": draw.choice([1e-6, 1e-5]),
    }  # fmt: skip
    if draw.random() < 0.2:
        values |= {"sliding_window": draw.randint(1, 40), "max_window_layers": draw.randint(0, 3)}
    if draw.random() < 0.6:
        values |= _experts(draw)
    if draw.random() < 0.2:
        values |= _latent(draw, heads)
    elif draw.random() < 0.15:  # what null means, where it divides and where it does not
        values["head_dim"] = values["hidden_size"] // heads
    values["rope_parameters"] = rope = _rope(draw)
    if rope.get("rope_type") == "longrope":  # one number for each pair
        width = (
            values.get("qk_rope_head_dim") or values["head_dim"] or values["hidden_size"] // heads
        )
        rope["long_factor"] = [1.0 + pair for pair in range(width // 2)]
        rope["short_factor"] = [1.0 + pair / 9 for pair in range(width // 2)]
    return values


def _experts(draw: random.Random) -> dict[str, Any]:
    E = draw.randint(1, 6)
    values: dict[str, Any] = {
        "num_experts": E, "num_experts_per_tok": draw.randint(1, E),
        "hidden_size": draw.choice([16, 24, 40, 36]),
        "moe_intermediate_size": draw.choice([None, 8, 16, 24, draw.randint(1, 40)]),
        "n_shared_experts": draw.randint(0, 2), "norm_topk_prob": draw.random() < 0.5,
        "first_k_dense_replace": draw.randint(0, 2),
        "scoring_func": draw.choice(["softmax", "sigmoid"]),
    }  # fmt: skip
    if values["scoring_func"] == "softmax" and draw.random() < 0.9:
        values["qk_norm"] = not values["n_shared_experts"]
        values["attention_bias"] = bool(values["n_shared_experts"])
    if values["scoring_func"] == "sigmoid":
        values |= {"n_group": draw.randint(1, 3), "routed_scaling_factor": draw.choice([1.0, 1.7])}
        values |= {"topk_group": draw.randint(1, values["n_group"])}
    if draw.random() < 0.3:
        values["router_aux_loss_coef"] = draw.choice([0.0, 0.01, 0.02])
    return values


def _latent(draw: random.Random, heads: int) -> dict[str, Any]:
    return {
        "kv_lora_rank": draw.randint(1, 20), "q_lora_rank": draw.choice([None, draw.randint(1, 20)]),
        "qk_nope_head_dim": draw.randint(1, 12), "qk_rope_head_dim": draw.choice([2, 4, 6]),
        "v_head_dim": draw.randint(1, 16), "num_key_value_heads": heads, "head_dim": None,
        "qk_norm": False, "attention_bias": False,
    }  # fmt: skip


def _rope(draw: random.Random) -> dict[str, Any]:
    original = {"original_max_position_embeddings": draw.choice([8, 16])}
    kinds: list[dict[str, Any]] = [
        {},
        {},
        {"rope_type": "linear", "factor": 2.5},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, **original},
        {"rope_type": "yarn", "factor": 2.0, "mscale": 0.7, "mscale_all_dim": 1.2, **original},
        {"rope_type": "longrope", **original},
        {"partial_rotary_factor": 0.5},
    ]
    return draw.choice(kinds)

"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-split layout of Llama.

Takes position ids; gives cosines and sines once per forward, and turns queries and keys by them.
Shapes: B rows, S positions, H heads, D head width, R <= D rotary width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mengya.models.config.model import ModelConfig
from mengya.models.extensions.clex import Clex


def rotary_angles(
    position_ids: Tensor, config: ModelConfig, clex: Clex | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position * frequency for each of the R/2 pairs that are turned.

    Args:
        position_ids: [B, S] or [1, S] int64.
        clex: gives the frequencies of rope_type=clex; without it they are those of t = 1.

    Returns:
        (cos, sin), each [B, S, 1, R/2] float32, ready to broadcast over the heads.
    """
    frequencies = _frequencies(position_ids, config) if clex is None else clex(position_ids)
    angles = position_ids[:, :, None, None].float() * frequencies
    amplitude = config.rope_parameters.amplitude
    return angles.cos() * amplitude, angles.sin() * amplitude


def _frequencies(position_ids: Tensor, config: ModelConfig) -> Tensor:
    """Angle per position of each pair, [R/2] fp32: theta^(-2i/R), scaled as `rope_parameters` says."""
    rope, R, theta = config.rope_parameters, config.rotary_width, config.rope_theta
    exponents = torch.arange(0, R, 2, dtype=torch.float32, device=position_ids.device) / R
    factor = rope.factor or 1.0
    match rope.rope_type:
        case "default" | "clex":
            return 1.0 / theta**exponents
        case "linear":
            return 1.0 / theta**exponents / factor
        case "dynamic":
            # The base grows with the longest text of this forward, so no angle between two
            # neighbours of a short text changes. As a tensor: the device is not asked for it.
            trained = config.max_position_embeddings
            length = (position_ids.max() + 1).clamp(min=trained)
            growth = factor * length / trained - (factor - 1)
            return 1.0 / (theta * growth ** (R / (R - 2))) ** exponents
        case "longrope":
            assert rope.long_factor and rope.short_factor and rope.original_max_position_embeddings
            longer = position_ids.max() >= rope.original_max_position_embeddings
            long, short = (
                torch.tensor(numbers, device=position_ids.device)
                for numbers in (rope.long_factor, rope.short_factor)
            )
            return 1.0 / (torch.where(longer, long, short) * theta**exponents)
        case "yarn":
            powers = theta**exponents
            kept = _yarn_kept(config, position_ids.device)
            return (1.0 / (factor * powers)) * (1 - kept) + (1.0 / powers) * kept


def _yarn_kept(config: ModelConfig, device: torch.device) -> Tensor:
    """Share of its own frequency that each pair keeps, [R/2]: 1 for fast pairs, 0 for slow ones.

    The ramp runs between the pairs that turn beta_fast and beta_slow times over the original context
    (arXiv:2309.00071, eq. 17 to 23).
    """
    rope, R = config.rope_parameters, config.rotary_width
    original = rope.original_max_position_embeddings
    assert original is not None  # the config's validator saw to it

    def pair_that_turns(times: float) -> float:
        return R * math.log(original / (times * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, R - 1)
    width = high - low or 0.001
    ramp = (torch.arange(R // 2, dtype=torch.float32, device=device) - low) / width
    return 1 - ramp.clamp(0, 1)

"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-split layout of Llama.

Takes position ids; gives cosines and sines once per forward pass.
Shapes: B rows, S positions, H heads, D head width, R <= D rotary width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mengya.models.config.model import ContextExtension, ModelConfig


class LearnedRope(nn.Module, ABC):
    """Rotary frequencies that are trained: a rope_type of ours that no class of transformers has."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """As before any training."""

    @abstractmethod
    def forward(self, position_ids: Tensor) -> Tensor:
        """Angle per position of each rotated pair, for the texts of this forward pass, [R/2] fp32."""

    @abstractmethod
    def frozen(self, factor: float) -> ContextExtension:
        """The frequencies at one factor, as positions that transformers knows.

        Raises:
            UserError: the model was not trained for this factor.
        """


def rotary_angles(
    position_ids: Tensor,
    config: ModelConfig,
    frequencies: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position * frequency for each of the R/2 rotated pairs.

    Args:
        position_ids: [B, S] or [1, S] int64.
        frequencies: position_ids -> [R/2] fp32, instead of those of `config`.

    Returns:
        (cos, sin), each [B, S, 1, R/2] float32, ready to broadcast over the heads.
    """
    per_position = (
        _frequencies(position_ids, config) if frequencies is None else frequencies(position_ids)
    )
    angles = position_ids[:, :, None, None].float() * per_position
    amplitude = config.rope_parameters.amplitude
    return angles.cos() * amplitude, angles.sin() * amplitude


def _frequencies(position_ids: Tensor, config: ModelConfig) -> Tensor:
    """Angle per position of each pair, [R/2] fp32: theta^(-2i/R), scaled as `rope_parameters` says."""
    rope, R, theta = config.rope_parameters, config.rotary_width, config.rope_theta
    exponents = torch.arange(0, R, 2, dtype=torch.float32, device=position_ids.device) / R
    factor = rope.factor or 1.0
    match rope.rope_type:
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
        case _:  # default, and learned ones before the context is extended
            return 1.0 / theta**exponents


def _yarn_kept(config: ModelConfig, device: torch.device) -> Tensor:
    """Share of its own frequency that each pair keeps, [R/2]: 1 for fast pairs, 0 for slow ones.

    The ramp lies between the pairs that rotate beta_fast and beta_slow times over the original context
    (arXiv:2309.00071, eq. 17 to 23).
    """
    rope, R = config.rope_parameters, config.rotary_width
    original = rope.original_max_position_embeddings
    assert original is not None  # checked by the configuration

    def pair_that_rotates(times: float) -> float:
        return R * math.log(original / (times * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = pair_that_rotates(rope.beta_fast), pair_that_rotates(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, R - 1)
    width = high - low or 0.001
    ramp = (torch.arange(R // 2, dtype=torch.float32, device=device) - low) / width
    return 1 - ramp.clamp(0, 1)

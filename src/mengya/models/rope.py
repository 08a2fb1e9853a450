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
    def forward(self, lengths: Tensor) -> Tensor:
        """Angle per position of each rotated pair, fp32.

        Args:
            lengths: [B or 1, S or 1] int64, of the text that each position belongs to.

        Returns:
            [R/2], or [B or 1, S or 1, 1, R/2] for each text its own.
        """

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
    document_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position * frequency for each of the R/2 rotated pairs.

    Args:
        position_ids: [B, S] or [1, S] int64.
        frequencies: as `LearnedRope.forward`, instead of those of `config`.
        document_ids: [B, S] int64, -1 on padding: the texts of a row; None: each row is one. Where the
            angles depend on the length of a text, it is its own and not that of a neighbour.

    Returns:
        (cos, sin), each [B, S, 1, R/2] float32, ready to broadcast over the heads.
    """
    lengths = position_ids  # which the other types do not read
    if config.rope_parameters.depends_on_length:
        lengths = _text_lengths(position_ids, document_ids)
    per_position = _frequencies(lengths, config) if frequencies is None else frequencies(lengths)
    angles = position_ids[:, :, None, None].float() * per_position
    amplitude = config.rope_parameters.amplitude
    return angles.cos() * amplitude, angles.sin() * amplitude


def _text_lengths(position_ids: Tensor, document_ids: Tensor | None) -> Tensor:
    """Tokens of the text that each position belongs to, [B, S] or [B or 1, 1] int64.

    As tensors of fixed shapes: the device is not asked for anything.
    """
    if document_ids is None:
        return position_ids.amax(1, keepdim=True) + 1
    index = document_ids + 1  # padding is text 0
    longest = position_ids.new_zeros(len(index), index.shape[1] + 1)
    longest.scatter_reduce_(1, index, position_ids.expand_as(index) + 1, "amax")
    return longest.gather(1, index)


def _frequencies(lengths: Tensor, config: ModelConfig) -> Tensor:
    """As `LearnedRope.forward`: theta^(-2i/R), scaled as `rope_parameters` says."""
    rope, R, theta = config.rope_parameters, config.rotary_width, config.rope_theta
    exponents = torch.arange(0, R, 2, dtype=torch.float32, device=lengths.device) / R
    factor = rope.factor or 1.0
    match rope.rope_type:
        case "linear":
            return 1.0 / theta**exponents / factor
        case "dynamic":
            # The base grows with the text, so no angle between two neighbours of a short one changes.
            trained = config.max_position_embeddings
            length = lengths[..., None, None].clamp(min=trained)
            growth = factor * length / trained - (factor - 1)
            return 1.0 / (theta * growth ** (R / (R - 2))) ** exponents
        case "longrope":
            assert rope.long_factor and rope.short_factor and rope.original_max_position_embeddings
            longer = lengths[..., None, None] > rope.original_max_position_embeddings
            long, short = (
                torch.tensor(numbers, device=lengths.device)
                for numbers in (rope.long_factor, rope.short_factor)
            )
            return 1.0 / (torch.where(longer, long, short) * theta**exponents)
        case "yarn":
            powers = theta**exponents
            kept = _yarn_kept(config, lengths.device)
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

"""What every layer shares in one forward pass: rotary angles, and what each token sees.

Knows no weights. Shapes: B rows, S new positions, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mengya.kernels.attention import document
from mengya.kernels.attention.dense import document_mask, row_pattern
from mengya.kernels.attention.pattern import AttentionPattern
from mengya.models.cache.protocol import Cache
from mengya.models.config.model import ModelConfig
from mengya.models.rope import rotary_angles

Frequencies = Callable[[Tensor], Tensor]
"""Lengths of texts -> angle per position of each rotated pair, fp32 (`LearnedRope.forward`)."""


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """
    Attributes:
        cos, sin: [B or 1, S, 1, D/2].
        full: what layers without a window see.
        sliding: what layers with a sliding window see; `full` itself where nothing is outside of it.
    """

    cos: Tensor
    sin: Tensor
    full: AttentionPattern
    sliding: AttentionPattern


class PatternMaker(Protocol):
    """Another pattern than full attention, for training (models/extensions)."""

    def __call__(
        self,
        position_ids: Tensor,
        document_ids: Tensor,
        cu_seqlens: Tensor | None,
        width: int,
        dtype: torch.dtype,
    ) -> AttentionPattern:
        """
        Args:
            position_ids: [B or 1, S] int64, from 0 in each document.
            document_ids: [B, S] int64, -1 on padding.
            cu_seqlens: as of `documents_pattern`.
        """
        ...


def plan_attention(
    config: ModelConfig,
    input_ids: Tensor,
    position_ids: Tensor | None,
    document_ids: Tensor | None,
    cu_seqlens: Tensor | None,
    dtype: torch.dtype,
    frequencies: Frequencies | None = None,
    make_pattern: PatternMaker | None = None,
) -> AttentionPlan:
    """Of complete rows; shapes as in `CausalLM.forward`.

    Args:
        frequencies: learned ones instead of those of `config`.
        make_pattern: instead of full attention.
    """
    S, device = input_ids.shape[1], input_ids.device
    if position_ids is None:
        position_ids = torch.arange(S, device=device)[None]
    cos, sin = rotary_angles(position_ids, config, frequencies, document_ids)
    width = max(config.head_width, config.v_head_dim or 0)  # latent attention has two
    if not document.is_supported(device, dtype, width):
        cu_seqlens = None
    if make_pattern is not None:
        if document_ids is None:
            document_ids = torch.zeros_like(input_ids)
        pattern = make_pattern(position_ids, document_ids, cu_seqlens, width, dtype)
        return AttentionPlan(cos, sin, pattern, pattern)

    def sees(window: int | None) -> AttentionPattern:
        if document_ids is None:
            return row_pattern(0, S, None, window, dtype, device)
        return documents_pattern(document_ids, cu_seqlens, width, dtype, window)

    full, window = sees(None), config.sliding_window
    return AttentionPlan(cos, sin, full, full if window is None or window >= S else sees(window))


def plan_decoding(
    config: ModelConfig,
    input_ids: Tensor,
    position_ids: Tensor | None,
    cache: Cache,
    dtype: torch.dtype,
    frequencies: Frequencies | None = None,
) -> AttentionPlan:
    """Of new tokens after what `cache` holds; arguments as those of `plan_attention`."""
    S, device = input_ids.shape[1], input_ids.device
    if position_ids is None:
        position_ids = cache.positions(S, device)
    cos, sin = rotary_angles(position_ids, config, frequencies)
    full, window = cache.pattern(S, None, dtype, device), config.sliding_window
    sliding = full if window is None else cache.pattern(S, window, dtype, device)
    return AttentionPlan(cos, sin, full, sliding)


def documents_pattern(
    document_ids: Tensor,
    cu_seqlens: Tensor | None,
    width: int,
    dtype: torch.dtype,
    window: int | None = None,
) -> AttentionPattern:
    """Packed documents: by their boundaries where there are any, else by a mask.

    Args:
        document_ids: [B, S] int64.
        cu_seqlens: the same boundaries, [N + 1] int32; None where no kernel reads them.
        width: of a head.
    """
    if cu_seqlens is None:
        return document_mask(document_ids, dtype, window)
    return document.document_pattern(cu_seqlens, document_ids.numel(), width, window)

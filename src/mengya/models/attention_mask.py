"""What each token may see, decided once per forward pass for all layers.

Takes positions, documents and what a cache holds; gives an `AttentionPlan`: angles, and a mask or
boundaries for the kernel that will run. Knows no weights.
Shapes: B rows, S new positions, T all positions, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mengya.kernels.attention.document import Documents, boundaries_serve, packed_documents
from mengya.models.cache.kv import KVCache
from mengya.models.cache.paged import PagedStep
from mengya.models.config.model import ModelConfig
from mengya.models.extensions.clex import Clex
from mengya.models.extensions.shifted_groups import group_boundaries, shifted_groups
from mengya.models.rope import rotary_angles


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What every layer shares in one forward.

    Attributes:
        cos, sin: [B or 1, S, 1, D/2].
        mask: [B, 1, S, T], added to the scores (0 or -inf), or None for no mask.
        causal: plain causal rows, S == T; never together with `mask`.
        documents: in the B*S flattened positions: use the kernel that reads boundaries; no mask.
        sliding: the plan of layers with a sliding window, where they see less than the others.
        halves: plans of the first and the second half of the heads (shifted sparse attention); then
            there is neither mask nor documents here.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor | None = None
    causal: bool = False
    documents: Documents | None = None
    sliding: AttentionPlan | None = None
    halves: tuple[AttentionPlan, AttentionPlan] | None = None


def plan_attention(
    config: ModelConfig,
    input_ids: Tensor,
    position_ids: Tensor | None,
    document_ids: Tensor | None,
    cu_seqlens: Tensor | None,
    cache: KVCache | PagedStep | None,
    dtype: torch.dtype,
    group_ratio: float = 0.0,
    clex: Clex | None = None,
) -> AttentionPlan:
    """Choose the kernel and build its mask once; shapes as in `CausalLM.forward`.

    Args:
        group_ratio: shifted sparse attention in groups of this share of S; 0: full attention.
            Not together with a cache.
        clex: the model's, where it has one.
    """
    if isinstance(cache, PagedStep):  # it knows the rest itself
        positions = cache.position_ids if position_ids is None else position_ids
        return AttentionPlan(*rotary_angles(positions, config))
    S = input_ids.shape[1]
    past = cache.length if cache is not None else 0
    padding = cache.left_padding if cache is not None else None
    if position_ids is None:
        position_ids = torch.arange(past, past + S, device=input_ids.device)[None]
        if padding is not None:
            position_ids = (position_ids - padding[:, None]).clamp(min=0)
    angles = rotary_angles(position_ids, config, clex)
    # Latent attention pads its queries, keys and values to one width.
    width = max(config.head_width, config.v_head_dim or 0)
    if not (input_ids.is_cuda and boundaries_serve(width, dtype)):
        cu_seqlens = None
    if group_ratio:
        documents = torch.zeros_like(input_ids) if document_ids is None else document_ids
        size = max(int(S * group_ratio), 2)
        halves = []
        for groups in shifted_groups(position_ids, documents, size):
            ends = None if cu_seqlens is None else group_boundaries(groups, cu_seqlens, size)
            halves.append(_documents(angles, groups, ends, width, dtype))
        return AttentionPlan(*angles, halves=(halves[0], halves[1]))
    if document_ids is not None:
        seen = partial(_documents, angles, document_ids, cu_seqlens, width, dtype)
    else:
        seen = partial(_rows, angles, padding, past, S, dtype)
    window = config.sliding_window
    if window is None or window >= past + S:  # nothing is outside
        return seen()
    return seen(sliding=seen(window=window))


def _documents(
    angles: tuple[Tensor, Tensor],
    document_ids: Tensor,
    cu_seqlens: Tensor | None,
    width: int,
    dtype: torch.dtype,
    window: int | None = None,
    sliding: AttentionPlan | None = None,
) -> AttentionPlan:
    """Packed documents: by their boundaries where the kernel takes them, else by a mask."""
    if cu_seqlens is not None:
        documents = packed_documents(cu_seqlens, document_ids.numel(), width, window)
        return AttentionPlan(*angles, documents=documents, sliding=sliding)
    mask = _document_mask(document_ids, dtype, window)
    return AttentionPlan(*angles, mask=mask, sliding=sliding)


def _rows(
    angles: tuple[Tensor, Tensor],
    padding: Tensor | None,
    past: int,
    S: int,
    dtype: torch.dtype,
    window: int | None = None,
    sliding: AttentionPlan | None = None,
) -> AttentionPlan:
    """One document a row, after what a cache holds."""
    if padding is None and window is None and (S == 1 or past == 0):
        return AttentionPlan(*angles, causal=S > 1, sliding=sliding)
    mask = _cached_mask(padding, past, S, angles[0].device, dtype, window)
    return AttentionPlan(*angles, mask=mask, sliding=sliding)


def _document_mask(document_ids: Tensor, dtype: torch.dtype, window: int | None) -> Tensor:
    """Each token sees itself and what came before in its own document; padding sees padding."""
    S = document_ids.shape[1]
    same = document_ids[:, :, None] == document_ids[:, None, :]
    before = torch.ones(S, S, dtype=torch.bool, device=document_ids.device).tril()
    if window is not None:
        before = before.triu(1 - window)
    return _additive(same & before, dtype)


def _cached_mask(
    padding: Tensor | None,
    past: int,
    S: int,
    device: torch.device,
    dtype: torch.dtype,
    window: int | None,
) -> Tensor:
    """Each new token sees all earlier ones but the left padding, and always itself."""
    keys = torch.arange(past + S, device=device)
    queries = torch.arange(past, past + S, device=device)[:, None]
    seen = (keys <= queries)[None]
    if window is not None:
        seen = seen & (keys > queries - window)
    if padding is not None:
        seen = seen & (keys >= padding[:, None, None]) | (keys == queries)
    return _additive(seen, dtype)


def _additive(seen_BST: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where seen, -inf elsewhere: SDPA would otherwise turn booleans into this in every layer."""
    mask = torch.zeros(seen_BST.shape, dtype=dtype, device=seen_BST.device)
    return mask.masked_fill_(~seen_BST, float("-inf"))[:, None]

"""Shifted sparse attention (LongLoRA, Chen et al. 2023, arXiv:2309.12307, section 3.2): who sees whom.

In training each head sees its own group of G positions; half of the heads have their groups shifted by
half a group, so that information crosses group borders. Groups are counted from the start of each
document, not of the row: a packed document is computed as it would be alone, and one that fits into a
group is not cut. The paper's code joins the half groups at both ends of a row into one; here they stay
apart, so nothing leaks from the end to the start. Shapes: B rows, S positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mengya.errors import UserError
from mengya.kernels.attention.pattern import AttentionPattern
from mengya.models.attention_mask import documents_pattern
from mengya.models.config.model import ModelConfig
from mengya.runtime.integers import ceil_div


class ShiftedGroups:
    """A `PatternMaker`: groups of `ratio` of a row's length.

    Raises:
        UserError: an odd number of key/value heads, or a sliding window, which is sparse already.
    """

    def __init__(self, config: ModelConfig, ratio: float) -> None:
        if config.num_key_value_heads % 2:
            raise UserError(
                "shifted_sparse_ratio halves the heads, and num_key_value_heads="
                f"{config.num_key_value_heads} is odd; use a model with an even number, or "
                "shifted_sparse_ratio=null"
            )
        if config.sliding_window is not None:
            raise UserError(
                f"shifted_sparse_ratio and sliding_window={config.sliding_window} are two sparse "
                "attentions; use one of them"
            )
        self.ratio = ratio

    def __call__(
        self,
        position_ids: Tensor,
        document_ids: Tensor,
        cu_seqlens: Tensor | None,
        width: int,
        dtype: torch.dtype,
    ) -> HeadHalves:
        size = max(int(document_ids.shape[1] * self.ratio), 2)
        halves = []
        for groups in shifted_groups(position_ids, document_ids, size):
            ends = None if cu_seqlens is None else group_boundaries(groups, cu_seqlens, size)
            halves.append(documents_pattern(groups, ends, width, dtype))
        return HeadHalves(*halves)


@dataclass(frozen=True, slots=True)
class HeadHalves:
    """A pattern of the first half of the heads, another of the second."""

    first: AttentionPattern
    second: AttentionPattern
    packed: ClassVar[bool] = False

    def attend(
        self, q_BSHD: Tensor, k_BTKD: Tensor, v_BTKV: Tensor, scale: float | None = None
    ) -> Tensor:
        """As `AttentionPattern.attend`."""
        q, k, v = (t.chunk(2, dim=2) for t in (q_BSHD, k_BTKD, v_BTKV))
        first = self.first.attend(q[0], k[0], v[0], scale)
        return torch.cat((first, self.second.attend(q[1], k[1], v[1], scale)), dim=2)


def shifted_groups(
    position_ids: Tensor, document_ids: Tensor, group_size: int
) -> tuple[Tensor, Tensor]:
    """The number of each position's group, for the plain half of the heads and for the shifted one.

    Args:
        position_ids: [B or 1, S] int64, from 0 in each document.
        document_ids: [B, S] int64, -1 on padding.

    Returns:
        Two [B, S] int64: equal where two positions of a row are of one document and one group.
    """
    B, S = document_ids.shape
    numbers = document_ids + 1
    lengths = torch.zeros(B, S + 1, dtype=torch.int64, device=numbers.device)
    lengths = lengths.scatter_add(1, numbers, torch.ones_like(numbers)).gather(1, numbers)
    fits = lengths <= group_size
    plain = (position_ids // group_size).masked_fill(fits, 0)
    shifted = ((position_ids + group_size // 2) // group_size).masked_fill(fits, 0)
    return numbers * (S + 2) + plain, numbers * (S + 2) + shifted


def group_boundaries(groups_BS: Tensor, cu_seqlens: Tensor, group_size: int) -> Tensor:
    """Starts of groups in the B*S flattened positions, in the form of `cu_seqlens`: [M + 1] int32.

    M depends on shapes alone, without a device sync: each document adds at most one boundary per group
    and one for the shift. The rest is filled up with B*S (empty documents).
    """
    B, S = groups_BS.shape
    most = min(cu_seqlens.numel() + B * ceil_div(S, group_size) + cu_seqlens.numel(), B * S + 1)
    places = torch.arange(B * S, device=groups_BS.device)
    begins = torch.ones_like(groups_BS, dtype=torch.bool)
    begins[:, 1:] = groups_BS[:, 1:] != groups_BS[:, :-1]
    found = torch.where(begins.flatten(), places, B * S).sort().values
    return torch.cat((found, found.new_full((1,), B * S)))[:most].to(torch.int32)

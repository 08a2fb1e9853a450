"""Shifted sparse attention (LongLoRA, Chen et al. 2023, arXiv:2309.12307, section 3.2): who sees whom.

In training each head sees its own group of G positions; half of the heads count their groups from
half a group further on, so that what one half knows reaches the next group through the other.
Groups are counted from the start of each document, not of the row: a packed document is computed as
it would be alone, and one that fits into a group is not cut at all. The paper's code joins the half
groups at both ends of a row into one; here they stay apart, so nothing leaks from the end to the
start. Takes positions and documents; gives finer "documents" for attention's masks and boundaries.
Shapes: B rows, S positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mengya.errors import UserError
from mengya.models.config.model import ModelConfig


def check_shifted_groups(config: ModelConfig) -> None:
    """Refuse a model whose heads cannot be halved.

    Raises:
        UserError: an odd number of key/value heads, or a sliding window, which is sparse already.
    """
    if config.num_key_value_heads % 2:
        raise UserError(
            f"shifted_sparse_ratio halves the heads, and num_key_value_heads={config.num_key_value_heads} "
            "is odd; use a model with an even number, or shifted_sparse_ratio=null"
        )
    if config.sliding_window is not None:
        raise UserError(
            f"shifted_sparse_ratio and sliding_window={config.sliding_window} are two sparse "
            "attentions; use one of them"
        )


def shifted_groups(
    position_ids: Tensor, document_ids: Tensor, group_size: int
) -> tuple[Tensor, Tensor]:
    """A number for the group of each position, of the plain half of the heads and of the shifted one.

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
    """Where groups begin in the B*S flattened positions, in `cu_seqlens`' form: [M + 1] int32.

    M depends on shapes alone, so the device is not asked: each document adds at most one boundary a
    group and one for the shift. What is left over is filled up with B*S (empty documents).
    """
    B, S = groups_BS.shape
    most = min(cu_seqlens.numel() + B * -(-S // group_size) + cu_seqlens.numel(), B * S + 1)
    places = torch.arange(B * S, device=groups_BS.device)
    begins = torch.ones_like(groups_BS, dtype=torch.bool)
    begins[:, 1:] = groups_BS[:, 1:] != groups_BS[:, :-1]
    found = torch.where(begins.flatten(), places, B * S).sort().values
    return torch.cat((found, found.new_full((1,), B * S)))[:most].to(torch.int32)

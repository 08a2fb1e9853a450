"""Attention over pages on CUDA: what `PlainAttention` computes, by the kernels of paged_triton.py.

Each sequence's new tokens are cut into tiles; a tile reads the pages that it sees once, for all query
heads of a group. Where tiles are few and long (decoding), each is split over its keys and the parts
are put together afterwards (Dao et al. 2023, "Flash-Decoding").
Shapes: N new tokens of all sequences end to end, R sequences, M pages of a table, U tiles, H query
heads, K key/value heads, D width of a key, V width of a value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mengya.kernels.triton_available import has_triton
from mengya.runtime.device import to_device

_TILE_ROWS = 64  # new tokens times heads of a group that a tile of a long chunk holds
_MOST_SPLITS = 32


def is_supported(device: torch.device) -> bool:
    """CUDA with Triton."""
    return device.type == "cuda" and has_triton()


@dataclass(frozen=True, slots=True)
class Tiles:
    """Pieces of new tokens that attend together.

    Attributes:
        plan_U4: int32 rows of (sequence, number of the first token in the batch, tokens, place of the
            first token in its sequence).
        most_tokens: of one tile.
    """

    plan_U4: Tensor
    most_tokens: int


class KernelAttention:
    """Takes what `PlainAttention` takes; rows of one token are tiles of one token."""

    def __init__(
        self,
        page_size: int,
        value_width: int,
        tables_RM: np.ndarray,
        starts_R: np.ndarray,
        counts_R: np.ndarray,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._page_size, self._value_width = page_size, value_width
        self._table_RM = to_device(np.ascontiguousarray(tables_RM), device)
        self._starts_R, self._counts_R = starts_R, counts_R
        # The length of a tile depends on the heads of a group, known from the first layer.
        self._tiles: list[Tiles] | None = None

    @classmethod
    def of_rows(
        cls, page_size: int, value_width: int, table_RM: Tensor, positions_R: Tensor
    ) -> KernelAttention:
        """One new token of each sequence; tensors on the device, int32."""
        self = cls.__new__(cls)
        self._page_size, self._value_width, self._table_RM = page_size, value_width, table_RM
        number = torch.arange(len(positions_R), dtype=torch.int32, device=positions_R.device)
        plan = torch.stack((number, number, torch.ones_like(number), positions_R), 1)
        self._tiles = [Tiles(plan, 1)]
        return self

    def attend(self, memory: Tensor, q_NHD: Tensor, new_NXKD: Tensor, scale: float) -> Tensor:
        """[N, H, V]; arguments as in `PlainAttention.attend`."""
        from mengya.kernels.attention.paged_triton import attend_tiles

        if self._tiles is None:
            group = q_NHD.shape[1] // memory.shape[3]
            self._tiles = self._cut(max(_TILE_ROWS // group, 1))
        q_NHD = q_NHD.contiguous()
        out_NHV = q_NHD.new_empty(*q_NHD.shape[:2], self._value_width)
        for tiles in self._tiles:
            splits = 1
            if tiles.most_tokens == 1:
                capacity = self._table_RM.shape[1] * self._page_size
                splits = split_count(len(tiles.plan_U4) * memory.shape[3], capacity)
            attend_tiles(
                memory,
                self._table_RM,
                tiles.plan_U4,
                tiles.most_tokens,
                q_NHD,
                out_NHV,
                scale,
                splits,
            )
        return out_NHV

    def _cut(self, most: int) -> list[Tiles]:
        """Rows as they are, and chunks in tiles of at most `most` tokens."""
        starts_R, counts_R = self._starts_R, self._counts_R
        firsts_R = counts_R.cumsum() - counts_R
        found = []
        for longer, size in ((False, 1), (True, most)):
            (chosen,) = np.nonzero((counts_R > 1) == longer)
            if not len(chosen):
                continue
            pieces = -(-counts_R[chosen] // size)
            owner_U = chosen.repeat(pieces)
            offset_U = (np.arange(len(owner_U)) - (pieces.cumsum() - pieces).repeat(pieces)) * size
            plan = (
                owner_U,
                firsts_R[owner_U] + offset_U,
                np.minimum(counts_R[owner_U] - offset_U, size),
                starts_R[owner_U] + offset_U,
            )
            plan_U4 = to_device(np.stack(plan, 1).astype(np.int32), self._table_RM.device)
            found.append(Tiles(plan_U4, size))
        return found


def split_count(programs: int, capacity: int) -> int:
    """Over how many programs each tile is split, so that there are twice as many as a large GPU has cores.

    A power of two, the same for every length, so that a CUDA graph can hold it.
    """
    splits = 1
    while splits < _MOST_SPLITS and programs * splits < 256 and capacity >= 2 * splits * 64:
        splits *= 2
    return splits

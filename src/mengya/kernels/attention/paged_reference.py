"""Attention of new tokens over the pages of their sequences, in plain PyTorch.

Takes the tables of one forward pass, then queries layer by layer; gives attention's sums. Runs on any
device; with Triton, paged.py computes the same without gathering keys first.
Shapes: N new tokens of all sequences end to end, R sequences, B of them with one new token each, S
new tokens of one sequence, T tokens seen, M pages of a table, X = 2 (keys, values) or 1 (latents,
which are both), H query heads, K key/value heads, D width of a key, V width of a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.runtime.device import to_device
from mengya.runtime.integers import ceil_div


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Several new tokens of one sequence: where they lie in the batch, and what they see."""

    first: int
    count: int
    end: int
    table_M: Tensor | None  # None: nothing came before
    mask_ST: Tensor | None


class PlainAttention:
    """Rows of one token attend together, longer chunks one after the other."""

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
        self._dtype, self._device = dtype, device
        several = np.flatnonzero(counts_R > 1)
        self._rows = int(several[0]) if len(several) else len(counts_R)
        if self._rows:
            self._plan_rows(tables_RM[: self._rows], starts_R[: self._rows])
        self._chunks = list(
            self._plan_chunks(
                tables_RM[self._rows :], starts_R[self._rows :], counts_R[self._rows :]
            )
        )

    def attend(self, memory: Tensor, q_NHD: Tensor, new_NXKD: Tensor, scale: float) -> Tensor:
        """[N, H, V].

        Args:
            memory: [pages, page_size, X, K, D] with the new tokens stored already.
            new_NXKD: the same tokens once more.
        """
        out = [self._attend_rows(memory, q_NHD[: self._rows], scale)] if self._rows else []
        for chunk in self._chunks:
            new = slice(chunk.first, chunk.first + chunk.count)
            if chunk.table_M is None:
                seen_TXKD = new_NXKD[new]
            else:
                seen_TXKD = memory.index_select(0, chunk.table_M).flatten(0, 1)[: chunk.end]
            out.append(self._attend_chunk(q_NHD[new], seen_TXKD, chunk.mask_ST, scale))
        return torch.cat(out) if len(out) > 1 else out[0]

    def _plan_rows(self, tables_BM: np.ndarray, starts_B: np.ndarray) -> None:
        self._longest = int(starts_B.max()) + 1
        width = ceil_div(self._longest, self._page_size)
        # What a short table holds beyond its own pages is some page: the mask hides it.
        self._table_BM = to_device(np.ascontiguousarray(tables_BM[:, :width]), self._device)
        hidden_BT = np.arange(self._longest) > starts_B[:, None]
        mask_BT = torch.zeros(hidden_BT.shape, dtype=self._dtype, device=self._device)
        mask_BT.masked_fill_(to_device(hidden_BT, self._device), float("-inf"))
        self._mask_B11T = mask_BT[:, None, None]

    def _plan_chunks(
        self, tables: np.ndarray, starts: np.ndarray, counts: np.ndarray
    ) -> Iterator[_Chunk]:
        first = self._rows
        for table, start, count in zip(tables, starts.tolist(), counts.tolist(), strict=True):
            end = start + count
            table_M = mask_ST = None
            if start:
                used = table[: ceil_div(end, self._page_size)]
                table_M = to_device(np.ascontiguousarray(used), self._device)
                mask_ST = torch.full(
                    (count, end), float("-inf"), dtype=self._dtype, device=self._device
                )
                mask_ST.triu_(start + 1)
            yield _Chunk(first, count, end, table_M, mask_ST)
            first += count

    def _attend_rows(self, memory: Tensor, q_BHD: Tensor, scale: float) -> Tensor:
        """Each row's one token over all that its sequence holds, [B, H, V]."""
        B, M = self._table_BM.shape
        gathered = memory.index_select(0, self._table_BM.flatten())
        seen = gathered.view(B, M * self._page_size, *memory.shape[2:])[:, : self._longest]
        k_BKTD, v_BKTV = self._keys_and_values(seen)
        # The query heads of a group take the place of positions, so that no key is copied for them.
        q_BKGD = q_BHD.reshape(B, memory.shape[3], -1, memory.shape[4])
        out = F.scaled_dot_product_attention(
            q_BKGD, k_BKTD, v_BKTV, attn_mask=self._mask_B11T, scale=scale
        )
        return out.reshape(*q_BHD.shape[:2], -1)

    def _attend_chunk(
        self, q_SHD: Tensor, seen_TXKD: Tensor, mask_ST: Tensor | None, scale: float
    ) -> Tensor:
        """[S, H, V]: each new token over what its sequence held before and its own chunk so far."""
        k_1KTD, v_1KTV = self._keys_and_values(seen_TXKD[None])
        groups = q_SHD.shape[1] // k_1KTD.shape[1]
        k_1HTD, v_1HTV = (t.repeat_interleave(groups, 1) for t in (k_1KTD, v_1KTV))
        out = F.scaled_dot_product_attention(
            q_SHD.transpose(0, 1)[None], k_1HTD, v_1HTV, attn_mask=mask_ST,
            is_causal=mask_ST is None, scale=scale,
        )  # fmt: skip
        return out[0].transpose(0, 1)

    def _keys_and_values(self, seen_BTXKD: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = seen_BTXKD[:, :, 0], seen_BTXKD[:, :, -1, :, : self._value_width]
        return keys.transpose(1, 2), values.transpose(1, 2)

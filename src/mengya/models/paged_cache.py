"""Keys and values of many sequences in one memory of pages (Kwon et al. 2023, arXiv:2309.06180).

Takes which pages belong to which sequence, and what attention hands over; gives attention's sums.
Knows nothing of requests, sampling or who owns a page.
Shapes: N new tokens of all sequences end to end, B sequences with one new token each, S new tokens
of one sequence, T tokens seen, M pages of a table, H query heads, K key/value heads, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.models.config import ModelConfig
from mengya.models.kv_cache import cache_bytes_per_token


class PagedCache:
    """The memory: for each layer [pages, page_size, 2 (keys, values), K, D], zeros at first.

    Zeros and never garbage, because a masked NaN would still spoil a sum.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_pages: int,
        page_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_pages, page_size, 2, config.num_key_value_heads, config.head_width)
        self.page_size = page_size
        self.layers = [
            torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)
        ]


def tokens_that_fit(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> int:
    """Into half of a GPU's free memory, or 2 GiB elsewhere."""
    memory = 2 * 2**30
    if device.type == "cuda":
        memory = torch.cuda.mem_get_info(device)[0] // 2
    return memory // cache_bytes_per_token(config, dtype)


@dataclass(frozen=True, slots=True)
class Span:
    """The new tokens of one sequence in a forward pass.

    Attributes:
        pages: numbers of the sequence's pages in order, with room for start + count tokens.
        start: tokens that the pages hold already.
        count: new tokens, at least 1.
    """

    pages: Sequence[int]
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Several new tokens of one sequence: where they lie in the batch, and what they see."""

    first: int
    count: int
    end: int
    table_M: Tensor | None  # None: nothing came before
    mask_ST: Tensor | None


class PagedStep:
    """One forward pass over a flattened batch [1, N]; goes to `CausalLM.forward` as its cache.

    Attributes:
        position_ids: [1, N] int64, each token's place in its own sequence.
    """

    def __init__(self, cache: PagedCache, spans: Sequence[Span]) -> None:
        """
        Args:
            spans: in the order of the batch; those of one token come first and attend together.

        Raises:
            ValueError: a span of one token after a longer one, or pages without room.
        """
        self._cache = cache
        memory = cache.layers[0]
        device, size = memory.device, cache.page_size
        for span in spans:
            if not 0 < span.count <= len(span.pages) * size - span.start:
                raise ValueError(f"{span.count} tokens do not fit after {span.start} in the pages")
        positions = [p for s in spans for p in range(s.start, s.start + s.count)]
        slots = [
            s.pages[p // size] * size + p % size
            for s in spans
            for p in range(s.start, s.start + s.count)
        ]
        self.position_ids = torch.tensor([positions], device=device)
        self._slots_N = torch.tensor(slots, device=device)
        self._rows = next((i for i, span in enumerate(spans) if span.count > 1), len(spans))
        if any(span.count == 1 for span in spans[self._rows :]):
            raise ValueError("spans of one token come before longer ones")
        if self._rows:
            self._plan_rows(spans[: self._rows], memory.dtype)
        self._chunks = list(self._plan_chunks(spans[self._rows :], memory.dtype))

    def _plan_rows(self, spans: Sequence[Span], dtype: torch.dtype) -> None:
        device = self._slots_N.device
        self._longest = max(span.start for span in spans) + 1
        width = -(-self._longest // self._cache.page_size)
        # Short tables are filled up with page 0: any page would do, the mask hides it.
        table = [[*s.pages[:width], *[0] * (width - len(s.pages))] for s in spans]
        self._table_BM = torch.tensor(table, device=device)
        ends_B = self.position_ids[0, : self._rows, None]
        hidden_BT = torch.arange(self._longest, device=device) > ends_B
        mask_BT = torch.zeros(hidden_BT.shape, dtype=dtype, device=device)
        self._mask_B11T = mask_BT.masked_fill_(hidden_BT, float("-inf"))[:, None, None]

    def _plan_chunks(self, spans: Sequence[Span], dtype: torch.dtype) -> Iterator[_Chunk]:
        device, first = self._slots_N.device, self._rows
        for span in spans:
            end = span.start + span.count
            table_M = mask_ST = None
            if span.start:
                used = span.pages[: -(-end // self._cache.page_size)]
                table_M = torch.tensor(used, device=device)
                mask_ST = torch.full((span.count, end), float("-inf"), dtype=dtype, device=device)
                mask_ST.triu_(span.start + 1)
            yield _Chunk(first, span.count, end, table_M, mask_ST)
            first += span.count

    def attend(self, layer: int, q_1NHD: Tensor, k_1NKD: Tensor, v_1NKD: Tensor) -> Tensor:
        """Store the new keys and values of one layer, then attend: [1, N, H, D]."""
        memory = self._cache.layers[layer]
        new_N2KD = torch.stack((k_1NKD[0], v_1NKD[0]), 1)
        memory.flatten(0, 1).index_copy_(0, self._slots_N, new_N2KD)
        out = [self._attend_rows(memory, q_1NHD[0, : self._rows])] if self._rows else []
        for chunk in self._chunks:
            new = slice(chunk.first, chunk.first + chunk.count)
            if chunk.table_M is None:
                kv_T2KD = new_N2KD[new]
            else:
                kv_T2KD = memory.index_select(0, chunk.table_M).flatten(0, 1)[: chunk.end]
            out.append(_attend_chunk(q_1NHD[:, new], kv_T2KD, chunk.mask_ST))
        return (torch.cat(out) if len(out) > 1 else out[0])[None]

    def _attend_rows(self, memory: Tensor, q_BHD: Tensor) -> Tensor:
        """Each row's one token over all that its sequence holds, [B, H, D]."""
        B, M = self._table_BM.shape
        gathered = memory.index_select(0, self._table_BM.flatten())
        seen = gathered.view(B, M * self._cache.page_size, *memory.shape[2:])[:, : self._longest]
        k_BKTD, v_BKTD = seen.permute(2, 0, 3, 1, 4)
        # The heads of a group stand in line as positions, so that no key is copied for them.
        q_BKGD = q_BHD.view(B, memory.shape[3], -1, memory.shape[4])
        out = F.scaled_dot_product_attention(q_BKGD, k_BKTD, v_BKTD, attn_mask=self._mask_B11T)
        return out.reshape(q_BHD.shape)


def _attend_chunk(q_1SHD: Tensor, kv_T2KD: Tensor, mask_ST: Tensor | None) -> Tensor:
    """[S, H, D]: each new token over what its sequence held before and over its own chunk so far."""
    H, K = q_1SHD.shape[2], kv_T2KD.shape[2]
    heads_T2HD = kv_T2KD.repeat_interleave(H // K, 2) if H > K else kv_T2KD
    k_1HTD, v_1HTD = heads_T2HD.permute(1, 2, 0, 3)[:, None]
    q_1HSD = q_1SHD.transpose(1, 2)
    out = F.scaled_dot_product_attention(
        q_1HSD, k_1HTD, v_1HTD, attn_mask=mask_ST, is_causal=mask_ST is None
    )
    return out[0].transpose(0, 1)

"""Keys and values of many sequences in one memory of pages (Kwon et al. 2023, arXiv:2309.06180).

Takes which pages belong to which sequence. Knows nothing of requests, sampling or who owns a page.
Shapes: N new tokens of all sequences end to end, R sequences, M pages of a table, H query heads, K
key/value heads, D width of a key, V width of a value.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mengya.kernels.attention import paged
from mengya.kernels.attention.dense import DensePattern
from mengya.kernels.attention.paged import KernelAttention
from mengya.kernels.attention.paged_reference import PlainAttention
from mengya.kernels.attention.pattern import AttentionPattern
from mengya.models.cache.kv import cache_bytes_per_token
from mengya.models.config.model import ModelConfig
from mengya.runtime.device import to_device


class PagedCache:
    """The memory: for each layer [pages, page_size, 2 (keys, values), K, D], zeros at first.

    With latent attention [pages, page_size, 1, 1, rank + rope]: what is stored is key and value in one.
    Zeros and never garbage, because a masked NaN would still make a sum NaN.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_pages: int,
        page_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        if config.kv_lora_rank is not None:
            stored = (1, 1, config.cache_width)
        else:
            stored = (2, config.num_key_value_heads, config.head_width)
        shape = (num_pages, page_size, *stored)
        self.page_size = page_size
        self.value_width = config.kv_lora_rank or config.head_width
        self.layers = [
            torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)
        ]

    @property
    def dtype(self) -> torch.dtype:
        return self.layers[0].dtype

    @property
    def device(self) -> torch.device:
        return self.layers[0].device


def tokens_that_fit(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> int:
    """Into half of a GPU's free memory, or 2 GiB elsewhere."""
    memory = 2 * 2**30
    if device.type == "cuda":
        memory = torch.cuda.mem_get_info(device)[0] // 2
    return memory // cache_bytes_per_token(config, dtype)


class PagedStep:
    """The `Cache` of one forward pass over a flattened batch [1, N].

    Attributes:
        position_ids: [1, N] int64, each token's place in its own sequence.
    """

    def __init__(
        self,
        cache: PagedCache,
        position_ids: Tensor,
        slots_N: Tensor,
        attention: PlainAttention | KernelAttention,
    ) -> None:
        """
        Args:
            slots_N: int64, where each token's keys and values go: page * page_size + place in it.
        """
        self.position_ids = position_ids
        self._cache, self._slots_N, self._attention = cache, slots_N, attention

    @classmethod
    def of(
        cls, cache: PagedCache, tables_RM: np.ndarray, starts_R: np.ndarray, counts_R: np.ndarray
    ) -> PagedStep:
        """
        Args:
            tables_RM: int32, numbers of each sequence's pages in order; any page where it has none.
            starts_R: int, tokens that its pages hold already.
            counts_R: int, its new tokens. Sequences stand in the order of the batch; those of one
                token come first and attend together.

        Raises:
            ValueError: a sequence of one token after a longer one, or of none.
        """
        longer = counts_R > 1
        if (counts_R < 1).any() or (longer[:-1] & ~longer[1:]).any():
            raise ValueError("sequences of one new token come first, and none has fewer")
        size, ends_R = cache.page_size, counts_R.cumsum()
        sequences_N = np.arange(len(counts_R)).repeat(counts_R)
        positions_N = np.arange(ends_R[-1]) + (starts_R - ends_R + counts_R)[sequences_N]
        slots_N = tables_RM[sequences_N, positions_N // size].astype(np.int64) * size
        slots_N += positions_N % size
        attention = (KernelAttention if paged.is_supported(cache.device) else PlainAttention)(
            size, cache.value_width, tables_RM, starts_R, counts_R, cache.dtype, cache.device
        )
        place, slots = to_device(positions_N, cache.device), to_device(slots_N, cache.device)
        return cls(cache, place[None], slots, attention)

    @classmethod
    def of_rows(cls, cache: PagedCache, positions_R: Tensor, table_RM: Tensor) -> PagedStep:
        """One new token of each sequence, planned on the device alone, so that a CUDA graph can hold it.

        Args:
            positions_R: [R] int32.
            table_RM: [R, M] int32.
        """
        place_R = positions_R.long()
        pages_R = table_RM.gather(1, (place_R // cache.page_size)[:, None])[:, 0]
        slots_R = pages_R.long() * cache.page_size + place_R % cache.page_size
        attention = KernelAttention.of_rows(
            cache.page_size, cache.value_width, table_RM, positions_R
        )
        return cls(cache, place_R[None], slots_R, attention)

    def positions(self, new: int, device: torch.device) -> Tensor:
        """As `Cache.positions`."""
        return self.position_ids

    def pattern(
        self, new: int, window: int | None, dtype: torch.dtype, device: torch.device
    ) -> DensePattern:
        """As `Cache.pattern`: empty, `attend` knows from the pages what each token sees."""
        return DensePattern()

    def attend(
        self,
        layer: int,
        q_1NHD: Tensor,
        k_1NKD: Tensor,
        v_1NKV: Tensor,
        pattern: AttentionPattern,
        scale: float | None = None,
    ) -> Tensor:
        """As `Cache.attend`, [1, N, H, V]."""
        return self._attend(layer, q_1NHD, torch.stack((k_1NKD[0], v_1NKV[0]), 1), scale)

    def attend_latents(
        self,
        layer: int,
        q_1NHC: Tensor,
        new_1NC: Tensor,
        rank: int,
        pattern: AttentionPattern,
        scale: float,
    ) -> Tensor:
        """As `Cache.attend_latents`, [1, N, H, rank]."""
        return self._attend(layer, q_1NHC, new_1NC[0, :, None, None], scale)

    def expandable_latents(self, layer: int, new_1NC: Tensor) -> None:
        """As `Cache.expandable_latents`: never, pages are read where they are."""

    def advance(self, tokens: int) -> None:
        """As `Cache.advance`: the scheduler counts."""

    def _attend(self, layer: int, q_1NHD: Tensor, new_NXKD: Tensor, scale: float | None) -> Tensor:
        memory = self._cache.layers[layer]
        memory.flatten(0, 1).index_copy_(0, self._slots_N, new_NXKD)
        if scale is None:
            scale = float(q_1NHD.shape[-1] ** -0.5)
        return self._attention.attend(memory, q_1NHD[0], new_NXKD, scale)[None]

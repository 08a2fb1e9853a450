"""Keys and values of the tokens seen so far, so that decoding computes each token once.

Knows nothing of sampling or text. Shapes as in protocol.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mengya.kernels.attention.dense import DensePattern, row_pattern
from mengya.kernels.attention.pattern import AttentionPattern
from mengya.models.config.model import ModelConfig


def cache_bytes_per_token(config: ModelConfig, dtype: torch.dtype = torch.bfloat16) -> int:
    """Bytes of KV cache that one token takes in all layers."""
    return config.num_hidden_layers * config.cache_width * dtype.itemsize


class KVCache:
    """A `Cache` of preallocated memory that doubles when full.

    Rows shorter than the longest are padded on the left; `left_padding` ([B] int64 or None) says by
    how many positions, and attention hides these. Memory takes the dtype and device of what is
    stored first.

    Attributes:
        bounded: old tokens are dropped, so a text may be longer than the model's context.
    """

    bounded = False

    def __init__(
        self, num_layers: int, capacity: int = 256, left_padding: Tensor | None = None
    ) -> None:
        self.length = 0
        self.left_padding = left_padding
        self._capacity = capacity
        self._keys: list[Tensor | None] = [None] * num_layers
        self._values: list[Tensor | None] = [None] * num_layers

    @property
    def seen(self) -> int:
        """Tokens of the text so far; here all of them are held."""
        return self.length

    def pieces(self, ids_BS: Tensor) -> Iterator[Tensor]:
        """The new tokens in pieces that fit into memory; here all at once."""
        yield ids_BS

    def positions(self, new: int, device: torch.device) -> Tensor:
        """As `Cache.positions`: counted from each row's first real token."""
        position_ids = torch.arange(self.length, self.length + new, device=device)[None]
        if self.left_padding is None:
            return position_ids
        return (position_ids - self.left_padding[:, None]).clamp(min=0)

    def pattern(
        self, new: int, window: int | None, dtype: torch.dtype, device: torch.device
    ) -> DensePattern:
        """As `Cache.pattern`."""
        return row_pattern(self.length, new, self.left_padding, window, dtype, device)

    def attend(
        self,
        layer: int,
        q_BSHD: Tensor,
        k_BSKD: Tensor,
        v_BSKV: Tensor,
        pattern: AttentionPattern,
        scale: float | None = None,
    ) -> Tensor:
        """As `Cache.attend`."""
        return pattern.attend(q_BSHD, *self.update(layer, k_BSKD, v_BSKV), scale)

    def attend_latents(
        self,
        layer: int,
        q_BSHC: Tensor,
        new_BSC: Tensor,
        rank: int,
        pattern: AttentionPattern,
        scale: float,
    ) -> Tensor:
        """As `Cache.attend_latents`: every head reads the same latents."""
        seen_BT1C = self._update_latents(layer, new_BSC)
        return pattern.attend(q_BSHC, seen_BT1C, seen_BT1C[..., :rank], scale)

    def expandable_latents(self, layer: int, new_BSC: Tensor) -> Tensor | None:
        """As `Cache.expandable_latents`: for several new tokens at once."""
        if new_BSC.shape[1] == 1:
            return None
        return self._update_latents(layer, new_BSC)[:, :, 0]

    def update(self, layer: int, k_BSKD: Tensor, v_BSKV: Tensor) -> tuple[Tensor, Tensor]:
        """Store S new tokens of one layer; returns all keys and values, [B, length + S, K, width].

        `length` grows only by `advance`, after every layer has stored the same tokens.
        """
        end = self.length + k_BSKD.shape[1]
        keys = self._room(self._keys, layer, k_BSKD, end)
        values = self._room(self._values, layer, v_BSKV, end)
        keys[:, :, self.length : end] = k_BSKD.transpose(1, 2)
        values[:, :, self.length : end] = v_BSKV.transpose(1, 2)
        return keys[:, :, :end].transpose(1, 2), values[:, :, :end].transpose(1, 2)

    def advance(self, tokens: int) -> None:
        """As `Cache.advance`."""
        self.length += tokens

    def crop(self, length: int) -> None:
        """Forget everything after the first `length` tokens.

        Raises:
            ValueError: when the cache holds fewer.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot crop a cache of {self.length} tokens to {length}")
        self.length = length

    def take(self, rows_R: Tensor) -> KVCache:
        """A cache of these rows of this one, [R] int64, each as often as it is named."""
        padding = None if self.left_padding is None else self.left_padding[rows_R]
        taken = KVCache(len(self._keys), self._capacity, padding)
        taken.length = self.length
        taken._keys = [None if memory is None else memory[rows_R] for memory in self._keys]
        taken._values = [None if memory is None else memory[rows_R] for memory in self._values]
        return taken

    def _update_latents(self, layer: int, new_BSC: Tensor) -> Tensor:
        """All latents as keys of one head, [B, T, 1, C]; their values have no memory of their own."""
        new_BS1C = new_BSC[:, :, None]
        return self.update(layer, new_BS1C, new_BS1C[..., :0])[0]

    def _room(self, store: list[Tensor | None], layer: int, new_BSKD: Tensor, end: int) -> Tensor:
        """Memory of one layer for `end` tokens, [B, K, capacity, D]."""
        memory = store[layer]
        if memory is not None and end <= memory.shape[2]:
            return memory
        self._capacity = max(self._capacity, end if memory is None else 2 * end)
        B, _, K, D = new_BSKD.shape
        grown = new_BSKD.new_empty(B, K, self._capacity, D)
        if memory is not None:
            grown[:, :, : self.length] = memory[:, :, : self.length]
        store[layer] = grown
        return grown

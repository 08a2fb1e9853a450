"""Keys and values of the tokens seen so far, so that decoding computes each token once.

Takes what attention hands over; gives everything seen. Knows nothing of sampling or text.
Shapes: B rows, H key/value heads, T tokens seen, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mengya.models.config.model import ModelConfig


def cache_bytes_per_token(config: ModelConfig, dtype: torch.dtype = torch.bfloat16) -> int:
    """Bytes of KV cache that one token takes in all layers."""
    return config.num_hidden_layers * config.cache_width * dtype.itemsize


class KVCache:
    """Per-layer keys and values in preallocated memory that doubles when full.

    Rows shorter than the longest are padded on the left; `left_padding` ([B] int64 or None) says by
    how many positions, and attention hides these. Memory takes the dtype and device of what is
    stored first, so one cache serves any precision.

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
        """The new tokens in turns that fit into memory; here all at once."""
        yield ids_BS

    def append(self, layer: int, k_BHSD: Tensor, v_BHSD: Tensor) -> tuple[Tensor, Tensor]:
        """Store S new tokens of one layer; returns all keys and values, [B, H, length + S, D].

        `length` moves on only by `advance`, after every layer has stored the same tokens.
        """
        end = self.length + k_BHSD.shape[2]
        keys = self._room(self._keys, layer, k_BHSD, end)
        values = self._room(self._values, layer, v_BHSD, end)
        keys[:, :, self.length : end] = k_BHSD
        values[:, :, self.length : end] = v_BHSD
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, tokens: int) -> None:
        """Count `tokens` more as seen."""
        self.length += tokens

    def crop(self, length: int) -> None:
        """Forget everything after the first `length` tokens.

        Raises:
            ValueError: when the cache holds fewer.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot crop a cache of {self.length} tokens to {length}")
        self.length = length

    def _room(self, store: list[Tensor | None], layer: int, new: Tensor, end: int) -> Tensor:
        memory = store[layer]
        if memory is not None and end <= memory.shape[2]:
            return memory
        self._capacity = max(self._capacity, end if memory is None else 2 * end)
        B, H, _, D = new.shape
        grown = torch.empty(B, H, self._capacity, D, dtype=new.dtype, device=new.device)
        if memory is not None:
            grown[:, :, : self.length] = memory[:, :, : self.length]
        store[layer] = grown
        return grown

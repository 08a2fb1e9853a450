"""What a model asks of the memory that it decodes with; `KVCache` and `PagedStep` are such.

Shapes: B rows, S new tokens, H query heads, K key/value heads, D width of a key, V width of a value, C
width of a latent (which is key and value in one), T tokens held.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mengya.kernels.attention.pattern import AttentionPattern


class Cache(Protocol):
    """Earlier tokens of every layer. `CausalLM.decode` calls `advance` after all layers have attended."""

    def positions(self, new: int, device: torch.device) -> Tensor:
        """Position ids of the next `new` tokens, [B or 1, new] int64."""
        ...

    def pattern(
        self, new: int, window: int | None, dtype: torch.dtype, device: torch.device
    ) -> AttentionPattern:
        """What the next `new` tokens see; given back to `attend`.

        Args:
            window: how many positions each sees, its own included; None: all.
        """
        ...

    def attend(
        self,
        layer: int,
        q_BSHD: Tensor,
        k_BSKD: Tensor,
        v_BSKV: Tensor,
        pattern: AttentionPattern,
        scale: float | None = None,
        /,
    ) -> Tensor:
        """Store the new keys and values of a layer, then attend to all: [B, S, H, V].

        Args:
            scale: of the scores; None: D ** -0.5.
        """
        ...

    def attend_latents(
        self,
        layer: int,
        q_BSHC: Tensor,
        new_BSC: Tensor,
        rank: int,
        pattern: AttentionPattern,
        scale: float,
        /,
    ) -> Tensor:
        """As `attend` with one latent per token, its first `rank` numbers the value: [B, S, H, rank]."""
        ...

    def expandable_latents(self, layer: int, new_BSC: Tensor, /) -> Tensor | None:
        """Store new latents and give all, [B, T, C], where it pays to make keys and values of them.

        None, and nothing stored: use `attend_latents`.
        """
        ...

    def advance(self, tokens: int) -> None:
        """Count `tokens` more as held."""
        ...

"""A KV cache of fixed size: the first tokens of the text (sinks) and the recent ones (StreamingLLM).

Xiao et al. 2023, arXiv:2309.17453: attention puts much weight on the first few tokens whatever they say,
so a window that keeps them works for texts of any length. Positions are those within the cache, not those
of the text: no angle is new to the model. Cached keys are rotated for their original positions; when older
tokens are dropped the kept keys are rotated back by as much, always from the original key, so that
rounding does not add up. Shapes as in protocol.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from mengya.config import Config
from mengya.errors import UserError
from mengya.kernels.rotary import rotate
from mengya.models.cache.kv import KVCache
from mengya.models.config.model import ModelConfig
from mengya.models.rope import rotary_angles


class StreamingConfig(Config):
    """A cache of fixed size: which tokens of an endless text stay visible."""

    sinks: NonNegativeInt = 10
    """First tokens of the text, which are always kept."""
    window: PositiveInt = 1024
    """Recent tokens that are kept at least; the oldest are dropped when an eighth more have come."""


class StreamingCache(KVCache):
    """Sinks, then at least `window` recent tokens, in memory of a fixed size.

    Attributes:
        length: tokens held. seen: tokens of the text so far.
    """

    bounded = True

    def __init__(self, config: ModelConfig, settings: StreamingConfig) -> None:
        """
        Raises:
            UserError: more would be held than the model has positions for.
        """
        self._block = max(settings.window // 8, 1)
        capacity = settings.sinks + settings.window + self._block
        longest = config.max_position_embeddings
        rope = config.rope_parameters
        if rope.depends_on_length:  # beyond it the angles of cached keys would change
            longest = rope.original_max_position_embeddings or longest
        if capacity > longest:
            fitting = (longest - settings.sinks) * 8 // 9
            raise UserError(
                f"streaming.window={settings.window} with {settings.sinks} sinks holds {capacity} tokens, "
                f"the model was trained for {longest}; "
                f"write streaming.window={max(fitting, 1)} or less"
            )
        super().__init__(config.num_hidden_layers, capacity)
        self._config, self._sinks = config, settings.sinks
        self._evicted = 0
        # Keys rotated for their original positions, and how far each has moved to the front since.
        self._originals: list[Tensor | None] = [None] * config.num_hidden_layers
        self._moved_T = torch.zeros(capacity, dtype=torch.int64)

    @property
    def seen(self) -> int:
        return self._evicted + self.length

    def pieces(self, ids_BS: Tensor) -> Iterator[Tensor]:
        """The new tokens in pieces that fit; older tokens are dropped before a piece where memory is full."""
        while ids_BS.shape[1]:
            if self.length == self._capacity:
                self._evict()
            room = self._capacity - self.length
            yield ids_BS[:, :room]
            ids_BS = ids_BS[:, room:]

    def update(self, layer: int, k_BSKD: Tensor, v_BSKV: Tensor) -> tuple[Tensor, Tensor]:
        """As `KVCache.update`; the tokens must be a piece that `pieces` gave."""
        end = self.length + k_BSKD.shape[1]
        if end > self._capacity:
            raise ValueError(
                f"{end} tokens for a streaming cache of {self._capacity}; use pieces()"
            )
        originals = self._room(self._originals, layer, k_BSKD, end)
        originals[:, :, self.length : end] = k_BSKD.transpose(1, 2)
        return super().update(layer, k_BSKD, v_BSKV)

    def advance(self, tokens: int) -> None:
        self._moved_T[self.length : self.length + tokens] = 0
        super().advance(tokens)

    def crop(self, length: int) -> None:
        """Forget everything after the first `length` tokens of the text.

        Where that would leave much less than the window, as older tokens were dropped before, all is
        forgotten and `seen` is 0: the text must be given again.
        """
        if not 0 <= length <= self.seen:
            raise ValueError(f"cannot crop a text of {self.seen} tokens to {length}")
        kept = self.length - (self.seen - length)
        if self._evicted and kept < self._capacity - 2 * self._block:
            kept = self._evicted = 0
        self.length = kept

    def _evict(self) -> None:
        """Drop the oldest block of the recent tokens and move the others to the front."""
        first, gone = self._sinks, self._block
        kept = self.length - gone
        moved_T = self._moved_T[first + gone : self.length] + gone
        self._moved_T[first:kept] = moved_T
        for layer, (originals, keys, values) in enumerate(
            zip(self._originals, self._keys, self._values, strict=True)
        ):
            if originals is None or keys is None or values is None:
                raise ValueError(f"layer {layer} stored nothing")
            for memory in (originals, values):
                memory[:, :, first:kept] = memory[:, :, first + gone : self.length].clone()
            keys[:, :, first:kept] = self._rerotate(originals[:, :, first:kept], moved_T)
        self.length, self._evicted = kept, self._evicted + gone

    def _rerotate(self, k_BKTD: Tensor, moved_T: Tensor) -> Tensor:
        """Keys for positions `moved_T` nearer to the front, [B, K, T, D]."""
        cos, sin = rotary_angles(-moved_T[None].to(k_BKTD.device), self._config)
        amplitude = self._config.rope_parameters.amplitude  # is in the keys already
        cos, sin = (t[:, :, 0][:, None] / amplitude for t in (cos, sin))
        # What latent attention stores begins with the latent, which has no position.
        latent = self._config.kv_lora_rank or 0
        unrotated, rotated = k_BKTD[..., :latent], k_BKTD[..., latent:]
        return torch.cat((unrotated, rotate(rotated, cos, sin, k_BKTD.dtype)), dim=-1)

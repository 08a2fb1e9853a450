"""What each position sees, together with the computation that fits it: the interface of every attention here.

Shapes: B rows, S query positions, T key positions, H query heads, K key heads (H a multiple of K), D
width of queries and keys, V width of values.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor


class AttentionPattern(Protocol):
    """Made once per forward pass, used by every layer.

    Attributes:
        packed: queries, keys and values are read as rows of tokens, so that they are best made so.
    """

    packed: ClassVar[bool]

    def attend(
        self, q_BSHD: Tensor, k_BTKD: Tensor, v_BTKV: Tensor, scale: float | None = None
    ) -> Tensor:
        """Softmax-weighted sum of the values that each position sees, [B, S, H, V]; all of one dtype.

        Args:
            scale: of the scores, above 0; None: D ** -0.5.
        """
        ...

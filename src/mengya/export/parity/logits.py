"""How far logits are apart: per position, in nats, and in the likeliest token. Tensors in, numbers out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class LogitDistance:
    """Sums over sequences.

    Attributes:
        positions, agreeing: how many, and at how many the likeliest token is the same.
        tokens: how many of held-out text were predicted, with ours_nats and theirs_nats in all.
    """

    def __init__(self) -> None:
        self._errors: list[Tensor] = []
        self._first: list[float] = []
        self.positions = self.agreeing = self.tokens = 0
        self.ours_nats = self.theirs_nats = 0.0

    def add(self, ours_SV: Tensor, theirs_SV: Tensor, labels: Tensor | None) -> None:
        """One sequence.

        Args:
            labels: [S - 1], the tokens after all positions but the last; None: no held-out text.
        """
        theirs_SV = theirs_SV[:, : ours_SV.shape[1]].float().cpu()
        if theirs_SV.shape != ours_SV.shape:
            raise ValueError(f"logits of shape {list(theirs_SV.shape)}, not {list(ours_SV.shape)}")
        error_S = relative_error(ours_SV, theirs_SV)
        self._errors.append(error_S)
        self._first.append(error_S[0].item())
        self.positions += len(error_S)
        self.agreeing += int((ours_SV.argmax(-1) == theirs_SV.argmax(-1)).sum())
        if labels is not None:
            self.tokens += len(labels)
            self.ours_nats += _nats(ours_SV, labels)
            self.theirs_nats += _nats(theirs_SV, labels)

    @property
    def mean(self) -> float:
        return torch.cat(self._errors).mean().item()

    @property
    def worst(self) -> float:
        return torch.cat(self._errors).max().item()

    @property
    def grows_with_context(self) -> bool:
        """Whether tokens without any before them are right: then what is wrong is between tokens."""
        first = sum(self._first) / len(self._first)
        return first < 0.1 * self.mean


def relative_error(ours_SV: Tensor, theirs_SV: Tensor) -> Tensor:
    """|theirs - ours| / |ours| at each position, [S], of logits less their mean, which softmax ignores."""
    ours = ours_SV - ours_SV.mean(-1, keepdim=True)
    theirs = theirs_SV - theirs_SV.mean(-1, keepdim=True)
    distance_S = (theirs - ours).norm(dim=-1)
    return torch.where(distance_S == 0, 0.0, distance_S / ours.norm(dim=-1))


def _nats(logits_SV: Tensor, labels: Tensor) -> float:
    return F.cross_entropy(logits_SV[:-1], labels, reduction="sum").item()

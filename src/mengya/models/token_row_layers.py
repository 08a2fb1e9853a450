"""An embedding and an output layer some rows of which an adapter replaces, as PEFT's layers for tokens do.

Takes a plain layer, whose frozen weight it shares under the same name, and token ids; next to the matrix
stands one parameter [K, hidden] of an adapter in place of its rows, and gradients are of these alone.
Parameter names are PEFT's. Knows no model. Shapes: K rows, V vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.kernels.cross_entropy import ReplacedRows


class TokenRows(nn.Module):
    """The rows of one matrix by adapter, of which one adapter, or none, computes.

    Attributes:
        current: the adapter that computes, None for the frozen matrix. It may be one without rows here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trainable_tokens_delta = nn.ParameterDict()
        self.current: str | None = None

    def add(self, name: str, ids: Sequence[int], weight_VH: Tensor) -> None:
        """Give adapter `name` rows for `ids`, which start as those of the matrix."""
        device = weight_VH.device
        ids_K = torch.tensor(ids, device=device)
        slots_V = torch.full((len(weight_VH),), -1, device=device)
        slots_V[ids_K] = torch.arange(len(ids), device=device)
        self.register_buffer(f"ids_{name}", ids_K, persistent=False)
        self.register_buffer(f"slots_{name}", slots_V, persistent=False)
        self.trainable_tokens_delta[name] = nn.Parameter(weight_VH.detach()[ids_K].clone())

    @property
    def replaced(self) -> ReplacedRows | None:
        """Ids and rows of the adapter that computes; None where it has none."""
        if self.current is None or self.current not in self.trainable_tokens_delta:
            return None
        rows_KH = self.trainable_tokens_delta[self.current]
        return ReplacedRows(self.get_buffer(f"ids_{self.current}"), rows_KH)

    @property
    def slots_V(self) -> Tensor:
        """For every id its number among the rows of the adapter that computes, -1 where it has none."""
        return self.get_buffer(f"slots_{self.current}")


class RowsEmbedding(nn.Embedding):
    """An embedding some rows of which an adapter replaces; it shares the weight of the one it stands for."""

    def __init__(self, plain: nn.Embedding) -> None:
        super().__init__(plain.num_embeddings, plain.embedding_dim, device="meta")
        self.weight = plain.weight
        self.token_adapter = TokenRows()

    def forward(self, input: Tensor) -> Tensor:
        x = super().forward(input)
        replaced = self.token_adapter.replaced
        if replaced is None:
            return x
        slots = self.token_adapter.slots_V[input]
        rows = F.embedding(slots.clamp_min(0), replaced.rows_KH)
        return torch.where((slots >= 0)[..., None], rows.to(x.dtype), x)

    def plain(self) -> nn.Embedding:
        """The ordinary layer, with the rows of the adapter that computes written into the weight."""
        layer = nn.Embedding(self.num_embeddings, self.embedding_dim, device="meta")
        _write(self.token_adapter.replaced, self.weight)
        layer.weight = self.weight
        return layer


class RowsLinear(nn.Linear):
    """The output layer likewise: where the weights are tied it has the embedding's rows, else its own."""

    def __init__(self, plain: nn.Linear, tied: TokenRows | None) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False, device="meta")
        self.weight = plain.weight
        if tied is None:
            self.token_adapter = TokenRows()
        self._tied = () if tied is None else (tied,)  # not a submodule: its parameters count once

    @property
    def rows(self) -> TokenRows:
        return self._tied[0] if self._tied else self.token_adapter

    def forward(self, input: Tensor, pad: int = 0) -> Tensor:
        """Logits [..., V]; the product is taken with `pad` more rows of zeros, which are cut off."""
        replaced = self.rows.replaced
        if replaced is None:
            return F.linear(input, _padded(self.weight, pad))[..., : self.out_features]
        if torch.is_autocast_enabled(input.device.type):
            input = input.to(torch.get_autocast_dtype(input.device.type))
        with torch.autocast(input.device.type, enabled=False):
            given = (input, self.weight, replaced.rows_KH, replaced.ids_K, pad)
            logits = _ReplacedLinear.apply(*given)
        assert isinstance(logits, Tensor)  # `apply` is untyped
        return logits

    def plain(self) -> nn.Linear:
        """As of `RowsEmbedding`; of a tied layer the weight is written by the embedding."""
        layer = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        if not self._tied:
            _write(self.token_adapter.replaced, self.weight)
        layer.weight = self.weight
        return layer


class _ReplacedLinear(torch.autograd.Function):
    """x W^T with some rows of a frozen W replaced; no copy of the logits' gradient, which is the largest
    tensor, is made, and none of W's is."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_VH: Tensor, rows_KH: Tensor, ids_K: Tensor, pad: int
    ) -> Tensor:
        logits = F.linear(x, _padded(weight_VH.to(x.dtype), pad))
        logits.index_copy_(-1, ids_K, F.linear(x, rows_KH.to(x.dtype)))
        ctx.save_for_backward(x, weight_VH, rows_KH, ids_K)
        ctx.pad = pad
        return logits[..., : len(weight_VH)]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_VH, rows_KH, ids_K = ctx.saved_tensors
        gradient = gradients[0]
        of_rows = gradient.index_select(-1, ids_K)
        weight_VH = weight_VH.to(x.dtype)
        wide = F.pad(gradient, (0, ctx.pad)) if ctx.pad else gradient
        d_x = wide @ _padded(weight_VH, ctx.pad)
        d_x += of_rows @ (rows_KH.to(x.dtype) - weight_VH[ids_K])
        d_rows = of_rows.flatten(0, -2).T @ x.flatten(0, -2)
        return d_x, None, d_rows.to(rows_KH.dtype), None, None


def _padded(weight_VH: Tensor, pad: int) -> Tensor:
    return F.pad(weight_VH, (0, 0, 0, pad)) if pad else weight_VH


def _write(replaced: ReplacedRows | None, weight_VH: Tensor) -> None:
    if replaced is not None:
        weight_VH.index_copy_(0, replaced.ids_K, replaced.rows_KH.to(weight_VH.dtype))

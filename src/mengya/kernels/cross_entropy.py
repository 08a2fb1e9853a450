"""Chunked fused linear cross-entropy (as in Liger, Cut-CE); gradients are computed in the forward pass.

Takes the last hidden states, the output matrix and labels; gives the summed loss. The logits of a
batch are the largest tensor of a small model's training (65,536 positions of a vocabulary of 6,400
are 1.7 GB in fp32, of 151,669 forty); here at most one chunk of them exists, in the dtype of the matrix
product, and the backward pass computes no logits again.
Shapes: T positions, H hidden, V vocabulary, C positions in a chunk.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.batch import IGNORE_INDEX
from mengya.kernels.triton_available import has_triton
from mengya.runtime.integers import ceil_div

CHUNK_BYTES = 5 * 2**28  # of logits; smaller chunks would leave a large GPU's tiles half empty
_MULTIPLE = 128  # tensor cores: an odd width doubles the time of the products


class ReplacedRows(NamedTuple):
    """Rows [K, H] that stand in place of those of the output matrix at ids [K] int64."""

    ids_K: Tensor
    rows_KH: Tensor


def chunk_nll(
    logits_CV: Tensor, labels_C: Tensor, vocab_size: int, z_loss: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The reference of `cross_entropy_triton.fused_chunk_nll`.

    Columns from `vocab_size` on are padding and take no part.

    Returns:
        Sums over the chunk, [2] fp32: -log p(label) + z_loss log^2 Z, and -log p(label) alone; the
        gradient of the first with respect to the logits, as rows [C, V] and a scale of each row, [C]
        fp32 (ones here; the kernel saves a pass over memory by it).
    """
    columns_V = torch.arange(logits_CV.shape[1], device=logits_CV.device)
    scores_CV = torch.where(columns_V < vocab_size, logits_CV.float(), float("-inf"))
    labelled_C = labels_C != IGNORE_INDEX
    lse_C = scores_CV.logsumexp(-1)
    is_label_CV = columns_V == labels_C[:, None]
    label_score_C = torch.where(is_label_CV, scores_CV, 0.0).sum(-1)
    nll_C = torch.where(labelled_C, lse_C - label_score_C, 0.0)
    z_loss_C = torch.where(labelled_C, z_loss * lse_C.square(), 0.0)
    towards_C = (1 + 2 * z_loss * lse_C)[:, None]  # d lse / d logits is the softmax
    gradient_CV = (scores_CV - lse_C[:, None]).exp() * towards_C - is_label_CV.float()
    sums = torch.stack([(nll_C + z_loss_C).sum(), nll_C.sum()])
    rows_CV = torch.where(labelled_C[:, None], gradient_CV, 0.0).to(logits_CV.dtype)
    return sums, rows_CV, torch.ones_like(lse_C)


class _LinearNLL(torch.autograd.Function):
    """Gradients are made in the forward pass for an upstream gradient of 1, and scaled in the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: Tensor,
        weight_VH: Tensor,
        labels_T: Tensor,
        z_loss: float,
        ids_K: Tensor | None,
        rows_KH: Tensor | None,
    ) -> Tensor:
        V, dtype = weight_VH.shape[0], hidden_TH.dtype
        padded_VH = F.pad(weight_VH.to(dtype), (0, 0, 0, -V % _MULTIPLE))  # always a copy
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        if ids_K is not None and rows_KH is not None:
            padded_VH.index_copy_(0, ids_K, rows_KH.to(dtype))
        wants_rows = ids_K is not None and ctx.needs_input_grad[5]
        total = torch.zeros(2, device=hidden_TH.device)
        d_hidden = torch.empty_like(hidden_TH) if wants_hidden else None
        d_weight: Tensor | None = None
        d_rows: Tensor | None = None
        scale_T = torch.empty(len(hidden_TH), device=hidden_TH.device)
        size = _chunk_size(len(hidden_TH), padded_VH)
        for at in range(0, len(hidden_TH), size):
            hidden_CH = hidden_TH[at : at + size]
            logits_CV = hidden_CH @ padded_VH.T
            sums, rows_CV, scale_C = _nll(logits_CV, labels_T[at : at + size], V, z_loss)
            total += sums
            scale_T[at : at + size] = scale_C
            if d_hidden is not None:  # multiplied by `scale_T` in the backward pass
                torch.mm(rows_CV, padded_VH, out=d_hidden[at : at + size])
            if wants_weight or wants_rows:
                scaled_CH = _scale_rows(hidden_CH, scale_C, torch.empty_like(hidden_CH))
                if wants_weight:
                    d_weight = _add_product(d_weight, rows_CV.T, scaled_CH)
                if wants_rows:
                    d_rows = _add_product(d_rows, rows_CV[:, ids_K].T, scaled_CH)
        if d_weight is not None:
            d_weight = d_weight[:V].to(weight_VH.dtype)
        if d_rows is not None and rows_KH is not None:
            d_rows = d_rows.to(rows_KH.dtype)
        ctx.gradients = d_hidden, scale_T, d_weight, d_rows
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, scale_T, d_weight, d_rows = ctx.gradients
        del ctx.gradients  # overwritten below: a second backward pass must fail, not be wrong
        scale = upstream[0][0]
        return (
            None if d_hidden is None else _scale_rows(d_hidden, scale * scale_T, d_hidden),
            None if d_weight is None else d_weight.mul_(scale),
            None, None, None,
            None if d_rows is None else d_rows.mul_(scale),
        )  # fmt: skip


def linear_nll(
    hidden: Tensor,
    weight_VH: Tensor,
    labels: Tensor,
    z_loss: float = 0.0,
    replaced: ReplacedRows | None = None,
) -> Tensor:
    """Sums over all labelled positions, [2] fp32: the loss, and its part -log p(label) in nats.

    The same as with `token_nll` and `log_partition` of `hidden @ weight.T`, but for the weight's
    gradient, which is added up in fp32. Only the first has a gradient, and backward runs once.

    Args:
        hidden: [..., H] in the dtype that products are to run in.
        weight_VH: the output matrix, in any dtype.
        labels: [...] int64, IGNORE_INDEX where no loss is taken.
        z_loss: weight of log^2 Z, with Z the softmax's denominator.
        replaced: rows in place of some of a frozen `weight_VH`, which alone have a gradient.
    """
    ids_K, rows_KH = (None, None) if replaced is None else replaced
    hidden_TH = hidden.flatten(0, -2).contiguous()
    with torch.autocast(hidden.device.type, enabled=False):
        total = _LinearNLL.apply(hidden_TH, weight_VH, labels.flatten(), z_loss, ids_K, rows_KH)
    assert isinstance(total, Tensor)  # `apply` is untyped
    return total


def _has_kernels(x: Tensor) -> bool:
    return x.is_cuda and has_triton()


def _kernels() -> ModuleType:
    from mengya.kernels import cross_entropy_triton

    return cross_entropy_triton


def _nll(
    logits_CV: Tensor, labels_C: Tensor, vocab_size: int, z_loss: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`chunk_nll`, by its kernel where there is one."""
    if _has_kernels(logits_CV):
        return _kernels().fused_chunk_nll(logits_CV, labels_C, vocab_size, z_loss)
    return chunk_nll(logits_CV, labels_C, vocab_size, z_loss)


def _scale_rows(x_TH: Tensor, scale_T: Tensor, out_TH: Tensor) -> Tensor:
    """out, which becomes x with every row times its scale."""
    if _has_kernels(x_TH):
        _kernels().scale_rows(x_TH, scale_T, out_TH)
        return out_TH
    return torch.mul(x_TH, scale_T[:, None], out=out_TH)


def _chunk_size(positions: int, padded_VH: Tensor) -> int:
    """Positions of a chunk: chunks of equal size, a multiple of 128, about CHUNK_BYTES of logits."""
    most = max(CHUNK_BYTES // (padded_VH.shape[0] * padded_VH.element_size()), 1)
    chunks = ceil_div(positions, most)
    return ceil_div(ceil_div(positions, chunks), 128) * 128


def _add_product(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """total + a @ b, in place; a @ b where there is no total yet. fp32, whatever a and b are."""
    if not a.is_cuda or a.dtype == torch.float32:
        product = a.float() @ b.float()
        return product if total is None else total.add_(product)
    if total is None:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.addmm(total, a, b, out_dtype=torch.float32, out=total)

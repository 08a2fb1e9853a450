# pyright: basic, reportInvalidTypeForm=false
"""chunk_nll in one Triton kernel: the gradient takes the place of the logits that it is made from.

A program owns a row: one pass for the largest score and the sum, one that overwrites. The second finds
most of the row in the cache. Needs Triton, which comes with torch for CUDA.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from mengya.batch import IGNORE_INDEX

# Columns of a step and warps of a program: the fastest of nine pairs on an H100, at 6,400 and 151,669.
_SHORT_ROW = 1024, 4
_LONG_ROW = 2048, 8


def fused_chunk_nll(
    logits_CV: Tensor, labels_C: Tensor, vocab_size: int, z_loss: float
) -> tuple[Tensor, Tensor]:
    """As `linear_nll.chunk_nll`; `logits_CV` (contiguous) is overwritten and given back as the gradient."""
    C, width = logits_CV.shape
    sums_C2 = torch.empty(C, 2, device=logits_CV.device)
    block, warps = _SHORT_ROW if vocab_size < 16_384 else _LONG_ROW
    kernel: Any = _kernel
    kernel[(C,)](
        logits_CV, labels_C, sums_C2, vocab_size, width, z_loss, IGNORE_INDEX, block,
        num_warps=warps,
    )  # fmt: skip
    return sums_C2.sum(0), logits_CV


@triton.jit
def _scores(own, column, V, WIDTH):
    """-inf from V on. Read up to WIDTH: a mask that ends at an odd number would forbid wide loads."""
    score = tl.load(own + column, column < WIDTH, float("-inf")).to(tl.float32)
    return tl.where(column < V, score, float("-inf"))


@triton.jit
def _kernel(
    logits, labels, sums, V, WIDTH, z_loss, IGNORE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    own = logits + row * WIDTH
    label = tl.load(labels + row)
    learnt = label != IGNORE
    column = tl.arange(0, BLOCK)
    if learnt:
        most = tl.full([BLOCK], -1e30, tl.float32)  # finite: -inf - -inf is no number
        total = tl.zeros([BLOCK], tl.float32)
        picked = tl.zeros([BLOCK], tl.float32)  # a load of its own might come after the overwriting
        for at in range(0, V, BLOCK):
            score = _scores(own, at + column, V, WIDTH)
            more = tl.maximum(most, score)
            total = total * tl.exp(most - more) + tl.exp(score - more)
            most = more
            picked += tl.where(at + column == label, score, 0.0)
        highest = tl.max(most, 0)
        lse = highest + tl.log(tl.sum(total * tl.exp(most - highest), 0))
        nll = lse - tl.sum(picked, 0)
        tl.store(sums + row * 2, nll + z_loss * lse * lse)
        tl.store(sums + row * 2 + 1, nll)
        towards = 1 + 2 * z_loss * lse
        for at in range(0, WIDTH, BLOCK):
            score = _scores(own, at + column, V, WIDTH)
            gradient = tl.exp(score - lse) * towards
            gradient = tl.where(at + column == label, gradient - 1, gradient)
            tl.store(own + at + column, gradient.to(logits.dtype.element_ty), at + column < WIDTH)
    else:
        tl.store(sums + row * 2, 0.0)
        tl.store(sums + row * 2 + 1, 0.0)
        for at in range(0, WIDTH, BLOCK):
            zero = tl.zeros([BLOCK], tl.float32).to(logits.dtype.element_ty)
            tl.store(own + at + column, zero, at + column < WIDTH)

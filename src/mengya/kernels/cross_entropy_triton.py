# pyright: basic, reportInvalidTypeForm=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false, reportOperatorIssue=false
"""chunk_nll in Triton kernels: the gradient overwrites the logits.

A program owns a row. In bf16 and fp32 exp(score - some score of the row) never overflows, so one pass over
memory suffices: the softmax's denominator is known at its end and returned as a scale of the row. fp16
would overflow: there a first pass finds the sum, a second overwrites. Needs Triton.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from mengya.batch import IGNORE_INDEX
from mengya.runtime.integers import ceil_div

# Columns of a step and warps of a program: the fastest of seven pairs on an H100, at 6,400 and 151,669.
_SHORT_ROW = 2048, 4
_LONG_ROW = 4096, 8


def fused_chunk_nll(
    logits_CV: Tensor, labels_C: Tensor, vocab_size: int, z_loss: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `cross_entropy.chunk_nll`; `logits_CV` (contiguous) is overwritten and returned."""
    C, width = logits_CV.shape
    sums_C2 = torch.empty(C, 2, device=logits_CV.device)
    scale_C = torch.empty(C, device=logits_CV.device)
    block, warps = _SHORT_ROW if vocab_size < 16_384 else _LONG_ROW
    kernel: Any = _kernel
    kernel[(C,)](
        logits_CV, labels_C, sums_C2, scale_C, vocab_size, width, z_loss, IGNORE_INDEX, block,
        ONE_PASS=logits_CV.dtype != torch.float16, num_warps=warps,
    )  # fmt: skip
    return sums_C2.sum(0), logits_CV, scale_C


def scale_rows(x_TH: Tensor, scale_T: Tensor, out_TH: Tensor) -> None:
    """out = x * scale of each row; x and out contiguous, scale fp32 (torch.mul of bf16 by fp32 is slower)."""
    T, H = x_TH.shape
    kernel: Any = _scale_rows
    kernel[(T, ceil_div(H, 1024))](x_TH, scale_T, out_TH, H, 1024)


@triton.jit
def _scale_rows(x, scale, out, H, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + row * H + column, column < H).to(tl.float32) * tl.load(scale + row)
    tl.store(out + row * H + column, value.to(out.dtype.element_ty), column < H)


@triton.jit
def _scores(own, column, V, WIDTH):
    """-inf from V on. Read up to WIDTH: a mask that ends at an odd number would forbid wide loads."""
    score = tl.load(own + column, column < WIDTH, float("-inf")).to(tl.float32)
    return tl.where(column < V, score, float("-inf"))


@triton.jit
def _kernel(
    logits, labels, sums, scales, V, WIDTH, z_loss, IGNORE: tl.constexpr, BLOCK: tl.constexpr,
    ONE_PASS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    own = logits + row * WIDTH
    label = tl.load(labels + row)
    if label != IGNORE:
        if ONE_PASS:
            nll, lse, scale = _one_pass(own, label, V, WIDTH, z_loss, BLOCK)
        else:
            nll, lse, scale = _two_passes(own, label, V, WIDTH, z_loss, BLOCK)
    else:
        nothing = tl.full([], 0.0, tl.float32)
        nll, lse, scale = nothing, nothing, nothing
        column = tl.arange(0, BLOCK)
        for at in range(0, WIDTH, BLOCK):
            zero = tl.zeros([BLOCK], tl.float32).to(own.dtype.element_ty)
            tl.store(own + at + column, zero, at + column < WIDTH)
    tl.store(sums + row * 2, nll + z_loss * lse * lse)
    tl.store(sums + row * 2 + 1, nll)
    tl.store(scales + row, scale)


@triton.jit
def _one_pass(own, label, V, WIDTH, z_loss, BLOCK: tl.constexpr):
    """Overwrite a row; gives its -log p(label), its log Z, and its scale."""
    dtype = own.dtype.element_ty
    column = tl.arange(0, BLOCK)
    picked = tl.load(own + label).to(tl.float32)
    base = picked
    total = tl.zeros([BLOCK], tl.float32)
    for at in range(0, WIDTH, BLOCK):
        score = _scores(own, at + column, V, WIDTH)
        highest = tl.max(score, 0)
        if highest > base + 32:  # e^88 would be infinite; rare: take a higher base
            tl.debug_barrier()
            shrink = tl.exp(base - highest)
            for done in range(0, at, BLOCK):
                share = tl.load(own + done + column).to(tl.float32) * shrink
                tl.store(own + done + column, share.to(dtype))
            total *= shrink
            base = highest
        share = tl.exp(score - base)
        total += share
        tl.store(own + at + column, share.to(dtype), at + column < WIDTH)
    denominator = tl.sum(total, 0)
    lse = base + tl.log(denominator)
    scale = (1 + 2 * z_loss * lse) / denominator
    tl.debug_barrier()  # the label's column may be another thread's
    tl.store(own + label, (tl.exp(picked - base) - 1 / scale).to(dtype))
    return lse - picked, lse, scale


@triton.jit
def _two_passes(own, label, V, WIDTH, z_loss, BLOCK: tl.constexpr):
    """As `_one_pass`, for fp16; the scale is 1."""
    column = tl.arange(0, BLOCK)
    picked = tl.load(own + label).to(tl.float32)
    most = tl.full([BLOCK], -1e30, tl.float32)  # finite: -inf - -inf is no number
    total = tl.zeros([BLOCK], tl.float32)
    for at in range(0, V, BLOCK):
        score = _scores(own, at + column, V, WIDTH)
        more = tl.maximum(most, score)
        total = total * tl.exp(most - more) + tl.exp(score - more)
        most = more
    highest = tl.max(most, 0)
    lse = highest + tl.log(tl.sum(total * tl.exp(most - highest), 0))
    towards = 1 + 2 * z_loss * lse
    tl.debug_barrier()  # `picked` may be another thread's to overwrite
    for at in range(0, WIDTH, BLOCK):
        score = _scores(own, at + column, V, WIDTH)
        gradient = tl.exp(score - lse) * towards
        gradient = tl.where(at + column == label, gradient - 1, gradient)
        tl.store(own + at + column, gradient.to(own.dtype.element_ty), at + column < WIDTH)
    return lse - picked, lse, tl.full([], 1.0, tl.float32)

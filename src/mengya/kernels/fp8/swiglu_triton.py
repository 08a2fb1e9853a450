# pyright: basic, reportInvalidTypeForm=false, reportGeneralTypeIssues=false
"""The kernels of swiglu.py: they read bf16 or fp32 and write fp8 twice, as it is and transposed.

The fp8 products of a GPU contract over the contiguous dimension of both factors: tokens for a weight's
gradient, features for everything else. All kernels are bound by memory.

Each store converts to fp8 by itself, from a scale that is loaded again: with one conversion for two stores
the assembler of CUDA 12.9, which Triton has for Hopper, writes wrong bytes to the transposed one
(triton-lang/triton#11111).
"""

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from mengya.kernels.swiglu_triton import gradients

E5M2_MAX = tl.constexpr(57344.0)


@triton.jit
def quantize(
    x, scale, transposed_scale, rows8, transposed8, AT, N, K, LEAD, SCALE_STRIDE: tl.constexpr,
    TRANSPOSED_STRIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """x [N, K] / scale to the rows of rows8 from AT on, (x / transposed_scale).T to the columns of
    transposed8 [K, LEAD] from AT on. A stride of 0: one scale for all."""
    row, column = _place(ROWS, COLUMNS)
    inside = (row < N)[:, None] & (column < K)[None, :]
    value = tl.load(x + row[:, None] * K + column[None, :], inside, 0.0).to(tl.float32)
    by_row = value / tl.load(scale + row * SCALE_STRIDE, row < N, 1.0)[:, None]
    transposed = value / tl.load(transposed_scale + row * TRANSPOSED_STRIDE, row < N, 1.0)[:, None]
    _store_both(rows8, by_row, transposed8, transposed, AT + row, column, K, LEAD, inside)


@triton.jit
def forward(
    gate_up, x_scale, scale, transposed_scale, rows8, transposed8, N, F,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """silu(gate) * up of [N, 2F] times x_scale by rows; divided by scale and transposed_scale."""
    row, column = _place(ROWS, COLUMNS)
    inside = (row < N)[:, None] & (column < F)[None, :]
    gate, up = _gate_and_up(gate_up, x_scale, row, column, N, F, inside)
    hidden = gate * tl.sigmoid(gate) * up
    by_row = hidden / tl.load(scale + row, row < N, 1.0)[:, None]
    transposed = hidden / tl.load(transposed_scale + row, row < N, 1.0)[:, None]
    _store_both(rows8, by_row, transposed8, transposed, row, column, F, N, inside)


@triton.jit
def backward(
    d_hidden, gate_up, x_scale, transposed_factor, rows8, transposed8, N, F,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient of gate and up, [N, 2F]; transposed8 has every row times its transposed_factor."""
    row, column = _place(ROWS, COLUMNS)
    inside = (row < N)[:, None] & (column < F)[None, :]
    gate, up = _gate_and_up(gate_up, x_scale, row, column, N, F, inside)
    d = tl.load(d_hidden + row[:, None] * F + column[None, :], inside, 0.0).to(tl.float32)
    d_gate, d_up = gradients(d, gate, up)
    d_gate, d_up = _limited(d_gate), _limited(d_up)
    factor = tl.load(transposed_factor + row, row < N, 0.0)[:, None]
    _store_both(rows8, d_gate, transposed8, d_gate * factor, row, column, 2 * F, N, inside)
    _store_both(rows8, d_up, transposed8, d_up * factor, row, column + F, 2 * F, N, inside)


@triton.jit
def _gate_and_up(gate_up, x_scale, row, column, N, F, inside):
    factor = tl.load(x_scale + row, row < N, 0.0)[:, None]
    place = row[:, None] * (2 * F) + column[None, :]
    gate = tl.load(gate_up + place, inside, 0.0).to(tl.float32) * factor
    return gate, tl.load(gate_up + place + F, inside, 0.0).to(tl.float32) * factor


@triton.jit
def _limited(x):
    """Numbers too large for e5m2 become its largest; a NaN stays."""
    return tl.clamp(x, -E5M2_MAX, E5M2_MAX, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _place(ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    return row.to(tl.int64), column.to(tl.int64)


@triton.jit
def _store_both(rows8, by_row, transposed8, transposed, row, column, K, LEAD, inside):
    """by_row to rows8, rows of K; transposed to transposed8, rows of LEAD."""
    tl.store(rows8 + row[:, None] * K + column[None, :], by_row.to(rows8.dtype.element_ty), inside)
    to = transposed8 + column[:, None] * LEAD + row[None, :]
    tl.store(to, tl.trans(transposed.to(transposed8.dtype.element_ty)), tl.trans(inside))

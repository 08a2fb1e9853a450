# pyright: basic, reportInvalidTypeForm=false, reportGeneralTypeIssues=false
"""The kernels of fp8_swiglu.py: they read bf16 or fp32 and write fp8, by rows and turned by 90 degrees.

Both copies are wanted because the fp8 products of a GPU contract over what is contiguous in either
factor: the tokens for a weight's gradient, the features for all else. All are bound by memory.

Every store has a conversion to fp8 of its own, from a scale that is loaded anew. Of one conversion for
two stores the assembler of CUDA 12.9, which Triton has for Hopper, makes wrong bytes in the turned one
(triton-lang/triton#11111).
"""

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from mengya.kernels.swiglu_triton import gradients

E5M2_MOST = tl.constexpr(57344.0)


@triton.jit
def quantize(
    x, scale, turned_scale, rows8, turned8, AT, N, K, LEAD, SCALE_STRIDE: tl.constexpr,
    TURNED_STRIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """x [N, K] / scale to the rows of rows8 from AT on, (x / turned_scale).T to the columns of turned8
    [K, LEAD] from AT on. A stride of 0: one scale for all."""
    row, column = _place(ROWS, COLUMNS)
    inside = (row < N)[:, None] & (column < K)[None, :]
    value = tl.load(x + row[:, None] * K + column[None, :], inside, 0.0).to(tl.float32)
    by_row = value / tl.load(scale + row * SCALE_STRIDE, row < N, 1.0)[:, None]
    turned = value / tl.load(turned_scale + row * TURNED_STRIDE, row < N, 1.0)[:, None]
    _store_both(rows8, by_row, turned8, turned, AT + row, column, K, LEAD, inside)


@triton.jit
def forward(
    gate_up, x_scale, scale, turned_scale, rows8, turned8, N, F,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """silu(gate) * up of [N, 2F] times x_scale by rows; divided by scale and turned_scale."""
    row, column = _place(ROWS, COLUMNS)
    inside = (row < N)[:, None] & (column < F)[None, :]
    gate, up = _gate_and_up(gate_up, x_scale, row, column, N, F, inside)
    hidden = gate * tl.sigmoid(gate) * up
    by_row = hidden / tl.load(scale + row, row < N, 1.0)[:, None]
    turned = hidden / tl.load(turned_scale + row, row < N, 1.0)[:, None]
    _store_both(rows8, by_row, turned8, turned, row, column, F, N, inside)


@triton.jit
def backward(
    d_hidden, gate_up, x_scale, turned_factor, rows8, turned8, N, F,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient of gate and up, [N, 2F]; turned8 has every row times its turned_factor."""
    row, column = _place(ROWS, COLUMNS)
    inside = (row < N)[:, None] & (column < F)[None, :]
    gate, up = _gate_and_up(gate_up, x_scale, row, column, N, F, inside)
    d = tl.load(d_hidden + row[:, None] * F + column[None, :], inside, 0.0).to(tl.float32)
    d_gate, d_up = gradients(d, gate, up)
    d_gate, d_up = _limited(d_gate), _limited(d_up)
    factor = tl.load(turned_factor + row, row < N, 0.0)[:, None]
    _store_both(rows8, d_gate, turned8, d_gate * factor, row, column, 2 * F, N, inside)
    _store_both(rows8, d_up, turned8, d_up * factor, row, column + F, 2 * F, N, inside)


@triton.jit
def _gate_and_up(gate_up, x_scale, row, column, N, F, inside):
    factor = tl.load(x_scale + row, row < N, 0.0)[:, None]
    place = row[:, None] * (2 * F) + column[None, :]
    gate = tl.load(gate_up + place, inside, 0.0).to(tl.float32) * factor
    return gate, tl.load(gate_up + place + F, inside, 0.0).to(tl.float32) * factor


@triton.jit
def _limited(x):
    """No infinity of a number too large for e5m2; one that is there already stays a NaN."""
    return tl.clamp(x, -E5M2_MOST, E5M2_MOST, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _place(ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    return row.to(tl.int64), column.to(tl.int64)


@triton.jit
def _store_both(rows8, by_row, turned8, turned, row, column, K, LEAD, inside):
    """by_row to rows8, which is K wide, and turned to its transpose's layout turned8, LEAD wide."""
    tl.store(rows8 + row[:, None] * K + column[None, :], by_row.to(rows8.dtype.element_ty), inside)
    to = turned8 + column[:, None] * LEAD + row[None, :]
    tl.store(to, tl.trans(turned.to(turned8.dtype.element_ty)), tl.trans(inside))

# pyright: basic, reportInvalidTypeForm=false, reportGeneralTypeIssues=false
"""The kernels of swiglu.py: both are bound by memory, so every value is read and written once.

A program takes ROWS x COLUMNS of the [N, F] result; gate and up are side by side in rows of 2F.
"""

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def forward(gate_up, hidden, N, F, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row, column, inside = _places(N, F, ROWS, COLUMNS)
    gate = tl.load(gate_up + row * (2 * F) + column, inside, 0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * F) + F + column, inside, 0.0).to(tl.float32)
    product = gate * tl.sigmoid(gate) * up
    tl.store(hidden + row * F + column, product.to(hidden.dtype.element_ty), inside)


@triton.jit
def backward(d_hidden, gate_up, d_gate_up, N, F, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row, column, inside = _places(N, F, ROWS, COLUMNS)
    gate = tl.load(gate_up + row * (2 * F) + column, inside, 0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * F) + F + column, inside, 0.0).to(tl.float32)
    d = tl.load(d_hidden + row * F + column, inside, 0.0).to(tl.float32)
    d_gate, d_up = gradients(d, gate, up)
    kind = d_gate_up.dtype.element_ty
    tl.store(d_gate_up + row * (2 * F) + column, d_gate.to(kind), inside)
    tl.store(d_gate_up + row * (2 * F) + F + column, d_up.to(kind), inside)


@triton.jit
def gradients(d_hidden, gate, up):
    """Of gate and up, all in fp32."""
    sigmoid = tl.sigmoid(gate)
    return d_hidden * up * sigmoid * (1 + gate * (1 - sigmoid)), d_hidden * gate * sigmoid


@triton.jit
def _places(N, F, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    return row, column, (row < N) & (column < F)

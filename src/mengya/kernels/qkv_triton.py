# pyright: basic, reportInvalidTypeForm=false
"""The kernels of qkv.py. A row is one head of one token; rows have the memory layout of the product.

HALF is half a head's width, COLUMNS the power of two that holds it; H query and K key heads, constants
for the compiler because of the division by their sum. Needs Triton.
"""

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def forward(
    qkv, q_weight, k_weight, cos, sin, q, k, v, rows, eps,
    H: tl.constexpr, K: tl.constexpr, HALF: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
    NORM: tl.constexpr,
):  # fmt: skip
    """Split, normalize and rotate a tile of rows."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    token, head = row // (H + 2 * K), (row % (H + 2 * K)).to(tl.int32)
    inside = (row < rows)[:, None] & (column < HALF)[None, :]
    at = row[:, None] * (2 * HALF) + column[None, :]
    first = tl.load(qkv + at, inside, 0.0).to(tl.float32)
    second = tl.load(qkv + at + HALF, inside, 0.0).to(tl.float32)
    is_q, is_v = head < H, head >= H + K
    out_first, out_second = first, second
    if NORM:
        square = tl.sum(first * first, 1) + tl.sum(second * second, 1)
        scale = tl.rsqrt(square / (2 * HALF) + eps)[:, None]
        w_first = _weight(q_weight, k_weight, is_q, column, HALF)
        w_second = _weight(q_weight + HALF, k_weight + HALF, is_q, column, HALF)
        out_first, out_second = first * scale * w_first, second * scale * w_second
    angle = token[:, None] * HALF + column[None, :]
    c, s = tl.load(cos + angle, inside, 0.0), tl.load(sin + angle, inside, 0.0)
    rotated_first = out_first * c - out_second * s
    rotated_second = out_second * c + out_first * s
    out_first = tl.where(is_v[:, None], first, rotated_first)
    out_second = tl.where(is_v[:, None], second, rotated_second)
    _store_heads(q, k, v, token, head, column, out_first, out_second, inside, H, K, HALF)


@triton.jit
def _weight(q_weight, k_weight, is_q, column, HALF: tl.constexpr):
    of_q = tl.load(q_weight + column, column < HALF, 0.0).to(tl.float32)
    of_k = tl.load(k_weight + column, column < HALF, 0.0).to(tl.float32)
    return tl.where(is_q[:, None], of_q[None, :], of_k[None, :])


@triton.jit
def _store_heads(
    q, k, v, token, head, column, first, second, inside,
    H: tl.constexpr, K: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    q_at = ((token * H + head) * (2 * HALF))[:, None] + column[None, :]
    in_q = inside & (head < H)[:, None]
    tl.store(q + q_at, first.to(q.dtype.element_ty), in_q)
    tl.store(q + q_at + HALF, second.to(q.dtype.element_ty), in_q)
    k_at = ((token * K + head - H) * (2 * HALF))[:, None] + column[None, :]
    in_k = inside & ((head >= H) & (head < H + K))[:, None]
    tl.store(k + k_at, first.to(k.dtype.element_ty), in_k)
    tl.store(k + k_at + HALF, second.to(k.dtype.element_ty), in_k)
    v_at = k_at - K * 2 * HALF
    in_v = inside & (head >= H + K)[:, None]
    tl.store(v + v_at, first.to(v.dtype.element_ty), in_v)
    tl.store(v + v_at + HALF, second.to(v.dtype.element_ty), in_v)


@triton.jit
def _load_heads(
    q, k, v, token, head, column, inside, H: tl.constexpr, K: tl.constexpr, HALF: tl.constexpr
):  # fmt: skip
    """One half of every row's gradient, from whichever of the three holds it."""
    q_at = ((token * H + head) * (2 * HALF))[:, None] + column[None, :]
    k_at = ((token * K + head - H) * (2 * HALF))[:, None] + column[None, :]
    v_at = k_at - K * 2 * HALF
    of_q = tl.load(q + q_at, inside & (head < H)[:, None], 0.0)
    of_k = tl.load(k + k_at, inside & ((head >= H) & (head < H + K))[:, None], 0.0)
    of_v = tl.load(v + v_at, inside & (head >= H + K)[:, None], 0.0)
    return (of_q + of_k + of_v).to(tl.float32)  # two of the three are zero


@triton.jit
def backward(
    dq, dk, dv, qkv, q_weight, k_weight, cos, sin, d_qkv, parts, rows, eps,
    H: tl.constexpr, K: tl.constexpr, HALF: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
    NORM: tl.constexpr,
):  # fmt: skip
    """Tiles of rows one after another; the gradients of the norms' weights stay in registers till the end."""
    column = tl.arange(0, COLUMNS)
    q_first = tl.zeros([ROWS, COLUMNS], tl.float32)
    q_second = tl.zeros([ROWS, COLUMNS], tl.float32)
    k_first = tl.zeros([ROWS, COLUMNS], tl.float32)
    k_second = tl.zeros([ROWS, COLUMNS], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        token, head = row // (H + 2 * K), (row % (H + 2 * K)).to(tl.int32)
        inside = (row < rows)[:, None] & (column < HALF)[None, :]
        g_first = _load_heads(dq, dk, dv, token, head, column, inside, H, K, HALF)
        q_at, k_at, v_at = dq + HALF, dk + HALF, dv + HALF
        g_second = _load_heads(q_at, k_at, v_at, token, head, column, inside, H, K, HALF)
        angle = token[:, None] * HALF + column[None, :]
        c, s = tl.load(cos + angle, inside, 0.0), tl.load(sin + angle, inside, 0.0)
        is_q, is_v = head < H, head >= H + K
        d_first, d_second = g_first * c + g_second * s, g_second * c - g_first * s
        at = row[:, None] * (2 * HALF) + column[None, :]
        if NORM:
            first = tl.load(qkv + at, inside, 0.0).to(tl.float32)
            second = tl.load(qkv + at + HALF, inside, 0.0).to(tl.float32)
            square = tl.sum(first * first, 1) + tl.sum(second * second, 1)
            scale = tl.rsqrt(square / (2 * HALF) + eps)[:, None]
            first, second = first * scale, second * scale
            to_q = tl.where(is_q[:, None], 1.0, 0.0)
            to_k = tl.where((is_q | is_v)[:, None], 0.0, 1.0)
            q_first += d_first * first * to_q
            q_second += d_second * second * to_q
            k_first += d_first * first * to_k
            k_second += d_second * second * to_k
            d_first *= _weight(q_weight, k_weight, is_q, column, HALF)
            d_second *= _weight(q_weight + HALF, k_weight + HALF, is_q, column, HALF)
            along = tl.sum(d_first * first, 1) + tl.sum(d_second * second, 1)
            along = (along / (2 * HALF))[:, None]
            d_first = scale * (d_first - first * along)
            d_second = scale * (d_second - second * along)
        d_first = tl.where(is_v[:, None], g_first, d_first)
        d_second = tl.where(is_v[:, None], g_second, d_second)
        tl.store(d_qkv + at, d_first.to(d_qkv.dtype.element_ty), inside)
        tl.store(d_qkv + at + HALF, d_second.to(d_qkv.dtype.element_ty), inside)
    if NORM:
        own = parts + tl.program_id(0) * 4 * HALF + column
        tl.store(own, tl.sum(q_first, 0), column < HALF)
        tl.store(own + HALF, tl.sum(q_second, 0), column < HALF)
        tl.store(own + 2 * HALF, tl.sum(k_first, 0), column < HALF)
        tl.store(own + 3 * HALF, tl.sum(k_second, 0), column < HALF)

"""Triton kernels around the experts' products: rows sorted by expert and cut, results added up. Needs Triton.

Every kernel is deterministic: no atomics, sums in a fixed order. Nothing here waits for the device.
Shapes: N tokens, k experts per token, M = N*k rows, E experts, P blocks of rows, T pieces of sorted rows,
H hidden. A row is a (token, choice) pair, numbered n*k + choice.
"""

from __future__ import annotations

# Triton's operators are typed as never returning:
# pyright: reportGeneralTypeIssues=false
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def _bounds(ends_E, E, E_PAD: tl.constexpr):
    """(expert, its first sorted row, one past its last)"""
    e = tl.arange(0, E_PAD)
    start = tl.load(ends_E + e - 1, mask=(e > 0) & (e < E), other=0)
    return e, start, tl.load(ends_E + e, mask=e < E, other=0)


@triton.jit
def count(experts_M, counts_EP, M, E, ROWS: tl.constexpr, E_PAD: tl.constexpr):
    """counts_EP[e, p]: rows of block p that chose expert e."""
    p = tl.program_id(0)
    rows = p * ROWS + tl.arange(0, ROWS)
    chosen = tl.load(experts_M + rows, mask=rows < M, other=E_PAD).to(tl.int32)
    e = tl.arange(0, E_PAD)
    counts = tl.sum((chosen[:, None] == e[None, :]).to(tl.int32), 0)
    tl.store(counts_EP + e * tl.num_programs(0) + p, counts, mask=e < E)


@triton.jit
def place(experts_M, sums_EP, order_M, M, E, ROWS: tl.constexpr, E_PAD: tl.constexpr):
    """Write each row to its place in order_M: a counting sort, stable.

    sums_EP: the running sum of `count`'s counts, so one past the place of block p's last row for e.
    """
    p = tl.program_id(0)
    rows = p * ROWS + tl.arange(0, ROWS)
    live = rows < M
    chosen = tl.load(experts_M + rows, mask=live, other=E_PAD).to(tl.int32)
    e = tl.arange(0, E_PAD)
    is_mine = (chosen[:, None] == e[None, :]).to(tl.int32)
    first = tl.load(sums_EP + e * tl.num_programs(0) + p, mask=e < E, other=0) - tl.sum(is_mine, 0)
    places = tl.sum(is_mine * (first[None, :] + tl.cumsum(is_mine, 0) - 1), 1)
    tl.store(order_M + places, rows, mask=live)


@triton.jit
def cut(ends_E, pieces_T3, T, E, size, PIECES: tl.constexpr, E_PAD: tl.constexpr):
    """Cut the sorted rows of each expert into pieces: (expert, first row, end), or expert -1."""
    piece = tl.program_id(0) * PIECES + tl.arange(0, PIECES)
    e, start, end = _bounds(ends_E, E, E_PAD)
    number = tl.cdiv(end - start, size)
    last = tl.cumsum(number, 0)  # one past each expert's last piece
    is_mine = (piece[:, None] >= (last - number)[None, :]) & (piece[:, None] < last[None, :])
    mine = is_mine.to(tl.int32)
    begin = tl.sum(mine * (start[None, :] + (piece[:, None] - (last - number)[None, :]) * size), 1)
    stop = tl.minimum(begin + size, tl.sum(mine * end[None, :], 1))
    expert = tl.sum(mine * (e[None, :] + 1), 1) - 1
    live = piece < T
    tl.store(pieces_T3 + piece * 3, expert, mask=live)
    tl.store(pieces_T3 + piece * 3 + 1, begin, mask=live)
    tl.store(pieces_T3 + piece * 3 + 2, stop, mask=live)


@triton.jit
def add_chunks(parts_TX, ends_E, out_EX, X, size, E, BLOCK: tl.constexpr, E_PAD: tl.constexpr):
    """out[e] = sum over the chunks of expert e, in order; zero where it had no row."""
    expert = tl.program_id(1)
    e, start, end = _bounds(ends_E, E, E_PAD)
    number = tl.cdiv(end - start, size)
    first = tl.sum(tl.where(e < expert, number, 0), 0)
    mine = tl.sum(tl.where(e == expert, number, 0), 0)
    x = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    part = parts_TX + first.to(tl.int64) * X + x
    for _ in range(mine):
        total += tl.load(part, mask=x < X, other=0.0)
        part += X
    out = out_EX + expert.to(tl.int64) * X + x
    tl.store(out, total.to(out_EX.dtype.element_ty), mask=x < X)


@triton.jit
def add_choices(rows_NkH, out_NH, H, k, BLOCK: tl.constexpr):
    """out[n] = sum of the k rows of token n, in fp32."""
    n = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for choice in range(k):
        total += tl.load(rows_NkH + (n * k + choice) * H + h, mask=h < H, other=0.0).to(tl.float32)
    tl.store(out_NH + n * H + h, total.to(out_NH.dtype.element_ty), mask=h < H)

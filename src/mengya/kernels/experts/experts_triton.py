# pyright: reportArgumentType=false, reportOperatorIssue=false
"""The Triton kernels of the experts: rows sorted by expert and cut, products, results added up.

Every kernel is deterministic: no atomics, sums in a fixed order, no device sync. Needs Triton.
Shapes: N tokens, k experts per token, M = N*k rows, E experts, H hidden, I expert width, P blocks of
rows, T pieces of sorted rows. A row is a (token, choice) pair, numbered n*k + choice; `order_M` lists the
rows sorted by expert.
"""

from __future__ import annotations

# Triton's operators are typed as never returning:
# pyright: reportGeneralTypeIssues=false
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def _tile(columns):
    """(row tile, column tile): columns first, so that a row tile is read from memory once."""
    program = tl.program_id(0)
    return program // columns, program % columns


@triton.jit
def _rows(tiles_T3, tile, BM: tl.constexpr):
    expert = tl.load(tiles_T3 + tile * 3)
    rows = tl.load(tiles_T3 + tile * 3 + 1) + tl.arange(0, BM)
    return expert, rows, rows < tl.load(tiles_T3 + tile * 3 + 2)


@triton.jit
def _load_a(pointers, left, inner, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(pointers)
    return tl.load(pointers, mask=(inner < left)[None, :], other=0.0)


@triton.jit
def _load_b(pointers, left, inner, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(pointers)
    return tl.load(pointers, mask=(inner < left)[:, None], other=0.0)


@triton.jit
def gate_up(
    x_NH, weight_EJH, order_M, tiles_T3, gate_up_MJ, hidden_MI, H, I, k,
    SAVE: tl.constexpr, EVEN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """hidden = silu(gate) * up of each expert's rows of x, which are gathered as they are read.

    A tile holds BN gate and BN up columns side by side (g0 u0 g1 u1 ...), so that in the accumulator
    each pair belongs to one thread. J = 2I. SAVE: gate and up are written too, for backward.
    """
    tile, column = _tile(tl.cdiv(I, BN))
    expert, rows, live = _rows(tiles_T3, tile, BM)
    if expert < 0:
        return
    tokens = tl.load(order_M + rows, mask=live, other=0) // k
    pair = tl.arange(0, 2 * BN)
    unit = (column * BN + pair // 2) % I
    inner = tl.arange(0, BK)
    a = x_NH + tokens.to(tl.int64)[:, None] * H + inner[None, :]
    b = weight_EJH + expert.to(tl.int64) * 2 * I * H + (unit + pair % 2 * I)[None, :] * H
    b += inner[:, None]
    acc = tl.zeros((BM, 2 * BN), tl.float32)
    for start in range(0, H, BK):
        acc = tl.dot(_load_a(a, H - start, inner, EVEN), _load_b(b, H - start, inner, EVEN), acc)
        a += BK
        b += BK
    begin = tl.load(tiles_T3 + tile * 3 + 1).to(tl.int64)
    hidden_MI += begin * I
    gate_up_MJ += begin * 2 * I
    # In halves: the full tile with its intermediate values would not fit the registers.
    left, right = _halves(acc, BM, 2 * BN)
    units = column * BN + tl.arange(0, BN // 2)
    _swiglu(left, units, live, gate_up_MJ, hidden_MI, I, SAVE, BM, BN // 2)
    _swiglu(right, units + BN // 2, live, gate_up_MJ, hidden_MI, I, SAVE, BM, BN // 2)


@triton.jit
def _swiglu(
    pairs, units, live, gate_up_MJ, hidden_MI, I, SAVE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    dtype = hidden_MI.dtype.element_ty
    gate, up = tl.split(tl.reshape(pairs, (BM, BN, 2)))
    gate, up = gate.to(dtype), up.to(dtype)  # rounded first: backward meets the same numbers
    mask = live[:, None] & (units < I)[None, :]
    if SAVE:
        at = gate_up_MJ + tl.arange(0, BM)[:, None] * (2 * I) + units[None, :]
        tl.store(at, gate, mask=mask)
        tl.store(at + I, up, mask=mask)
    wide = gate.to(tl.float32)
    hidden = wide * tl.sigmoid(wide) * up.to(tl.float32)
    narrow = tl.arange(0, BM)[:, None] * I + units[None, :]
    tl.store(hidden_MI + narrow, hidden.to(dtype), mask=mask)


@triton.jit
def product(
    a_MK, b_E, out_MC, order_M, weights_M, tiles_T3, K, C, stride_bk, stride_bc,
    WEIGHTED: tl.constexpr, EVEN: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """out[order[m]] = a[m] @ b[expert of m], times the row's weight if WEIGHTED: unsorted again."""
    tile, column = _tile(tl.cdiv(C, BN))
    expert, rows, live = _rows(tiles_T3, tile, BM)
    if expert < 0:
        return
    back = tl.load(order_M + rows, mask=live, other=0)
    columns = column * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    a = a_MK + tl.where(live, rows, 0).to(tl.int64)[:, None] * K + inner[None, :]
    b = b_E + expert.to(tl.int64) * K * C
    b += (columns % C)[None, :] * stride_bc + inner[:, None] * stride_bk
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, K, BK):
        acc = tl.dot(_load_a(a, K - start, inner, EVEN), _load_b(b, K - start, inner, EVEN), acc)
        a += BK
        b += BK * stride_bk
    if WEIGHTED:
        acc *= tl.load(weights_M + back, mask=live, other=0.0)[:, None]
    out = out_MC + back.to(tl.int64)[:, None] * C + columns[None, :]
    tl.store(out, acc.to(out_MC.dtype.element_ty), mask=live[:, None] & (columns < C)[None, :])


@triton.jit
def swiglu_backward(
    dout_NH, down_EHI, order_M, weights_M, tiles_T3, gate_up_MJ,
    dgate_up_MJ, weighted_MI, dweights_MP, H, I, k,
    EVEN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """From the gradient of the output to those of gate and up, and of the routing weights.

    Rows of dout are gathered as they are read. With d = dout @ down, not yet weighted:
    dweights = <d, hidden>, in parts by column tile, as the outputs of experts were never kept;
    weighted = weight * hidden, which the gradient of `down` needs.
    """
    tile, column = _tile(tl.cdiv(I, BN))
    expert, rows, live = _rows(tiles_T3, tile, BM)
    if expert < 0:
        return
    back = tl.load(order_M + rows, mask=live, other=0)
    units = column * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    a = dout_NH + (back // k).to(tl.int64)[:, None] * H + inner[None, :]
    b = down_EHI + expert.to(tl.int64) * H * I
    b += (units % I)[None, :] + inner[:, None] * I
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, H, BK):
        acc = tl.dot(_load_a(a, H - start, inner, EVEN), _load_b(b, H - start, inner, EVEN), acc)
        a += BK
        b += BK * I
    begin = tl.load(tiles_T3 + tile * 3 + 1).to(tl.int64)
    gate_up_MJ += begin * 2 * I
    dgate_up_MJ += begin * 2 * I
    weighted_MI += begin * I
    weight = tl.load(weights_M + back, mask=live, other=0.0)[:, None]
    # In quarters: the full tile with its factors would not fit the registers.
    left, right = _halves(acc, BM, BN)
    a0, a1 = _halves(left, BM, BN // 2)
    a2, a3 = _halves(right, BM, BN // 2)
    units = column * BN + tl.arange(0, BN // 4)
    parts = _swiglu_backward(a0, weight, units, live, gate_up_MJ, dgate_up_MJ, weighted_MI, I, BM)
    units += BN // 4
    parts += _swiglu_backward(a1, weight, units, live, gate_up_MJ, dgate_up_MJ, weighted_MI, I, BM)
    units += BN // 4
    parts += _swiglu_backward(a2, weight, units, live, gate_up_MJ, dgate_up_MJ, weighted_MI, I, BM)
    units += BN // 4
    parts += _swiglu_backward(a3, weight, units, live, gate_up_MJ, dgate_up_MJ, weighted_MI, I, BM)
    tl.store(dweights_MP + back.to(tl.int64) * tl.cdiv(I, BN) + column, parts, mask=live)


@triton.jit
def _halves(x, BM: tl.constexpr, BN: tl.constexpr):
    """Left and right half of the columns."""
    return tl.split(tl.permute(tl.reshape(x, (BM, 2, BN // 2)), (0, 2, 1)))


@triton.jit
def _swiglu_backward(
    d, weight, units, live, gate_up_MJ, dgate_up_MJ, weighted_MI, I, BM: tl.constexpr
):  # fmt: skip
    mask = live[:, None] & (units < I)[None, :]
    at = tl.arange(0, BM)[:, None] * (2 * I) + units[None, :]
    gate = tl.load(gate_up_MJ + at, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up_MJ + I + at, mask=mask, other=0.0).to(tl.float32)
    dtype = dgate_up_MJ.dtype.element_ty
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    hidden = silu * up
    parts = tl.sum(d * hidden, 1)
    narrow = tl.arange(0, BM)[:, None] * I + units[None, :]
    tl.store(weighted_MI + narrow, (weight * hidden).to(dtype), mask=mask)
    d *= weight
    tl.store(dgate_up_MJ + I + at, (d * silu).to(dtype), mask=mask)
    dgate = d * up * (sigmoid + silu * (1.0 - sigmoid))
    tl.store(dgate_up_MJ + at, dgate.to(dtype), mask=mask)
    return parts


@triton.jit
def weight_gradient(
    left_RA, right_RB, order_M, chunks_T3, parts_TAB, A, B, k,
    GATHER_LEFT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """parts[t] = left[rows of chunk t].T @ right[those rows], fp32; one of the two is by token."""
    column_tiles = tl.cdiv(B, BN)
    chunk, tile = _tile(tl.cdiv(A, BM) * column_tiles)
    expert = tl.load(chunks_T3 + chunk * 3)
    begin = tl.load(chunks_T3 + chunk * 3 + 1)
    end = tl.load(chunks_T3 + chunk * 3 + 2)
    if expert < 0:
        return
    a = tile // column_tiles * BM + tl.arange(0, BM)
    b = tile % column_tiles * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(begin, end, BK):
        rows = start + inner
        live = rows < end
        tokens = tl.load(order_M + rows, mask=live, other=0) // k
        left_rows = tokens if GATHER_LEFT else rows
        right_rows = rows if GATHER_LEFT else tokens
        left = tl.load(
            left_RA + left_rows.to(tl.int64)[:, None] * A + a[None, :],
            mask=live[:, None] & (a < A)[None, :],
            other=0.0,
        )
        right = tl.load(
            right_RB + right_rows.to(tl.int64)[:, None] * B + b[None, :],
            mask=live[:, None] & (b < B)[None, :],
            other=0.0,
        )
        acc = tl.dot(tl.trans(left), right, acc)
    out = parts_TAB + chunk.to(tl.int64) * A * B + a.to(tl.int64)[:, None] * B + b[None, :]
    tl.store(out, acc, mask=(a < A)[:, None] & (b < B)[None, :])


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

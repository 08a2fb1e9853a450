# pyright: basic, reportInvalidTypeForm=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false, reportOperatorIssue=false
"""The kernels of document.py: flash attention (Dao 2023, arXiv:2307.08691) of packed documents.

Position i sees j where first_visible[i] <= j <= i, which is where i < visible_end[j]. Both grow with the
position, so a block's first and last entry bound what it meets, and only blocks at a border compare
positions.
A head's width is D1 + D2 columns, powers of two (D2 may be 0): 96 = 64 + 32 is not padded to 128.
Every sum has one order and one writer: no atomics, the same bits each time.

T positions; tensors are [T, heads, D] with any strides of the first two dimensions (_T, _H), lse and
delta [H, T] in fp32; lse is in powers of two and `log2_scale` is the scores' scale times log2(e). ROWS
are the positions of a program, STEP those of one step of its loop; EVEN: T is a multiple of both;
BRANCH: skip comparing where no border is near, else compare always. Needs Triton.
"""

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def _offsets(stride, LENGTH: tl.constexpr, FROM: tl.constexpr, WIDTH: tl.constexpr):
    """Of LENGTH positions of one head, WIDTH columns each."""
    return tl.arange(0, LENGTH)[:, None] * stride + FROM + tl.arange(0, WIDTH)[None, :]


@triton.jit
def _load(pointers, first, T, LENGTH: tl.constexpr, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(pointers)
    return tl.load(pointers, (first + tl.arange(0, LENGTH) < T)[:, None], 0.0)


@triton.jit
def _store(pointers, values, first, T, LENGTH: tl.constexpr, EVEN: tl.constexpr):
    values = values.to(pointers.dtype.element_ty)
    if EVEN:
        tl.store(pointers, values)
    else:
        tl.store(pointers, values, (first + tl.arange(0, LENGTH) < T)[:, None])


@triton.jit
def _block(bounds, T, beyond, ROWS: tl.constexpr):
    """What a program works on: (its first position, its head, its positions, the bound of each, that of
    the first and that of the last). `beyond`: the bound of positions from T on."""
    first, head = tl.program_id(0) * ROWS, tl.program_id(1).to(tl.int64)
    positions = first + tl.arange(0, ROWS)
    bound = tl.load(bounds + positions, positions < T, beyond)
    of_last = tl.load(bounds + tl.minimum(first + ROWS, T) - 1)
    return first, head, positions, bound, tl.load(bounds + first), of_last


@triton.jit
def forward(
    q, k, v, first_visible, out, lse, T, log2_scale,
    q_T, q_H, k_T, k_H, v_T, v_H, out_T, out_H,
    GROUP: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, ROWS: tl.constexpr,
    STEP: tl.constexpr, EVEN: tl.constexpr, BRANCH: tl.constexpr,
):  # fmt: skip
    """One block of query positions of one query head; softmax as the keys come."""
    first, head, i, begin, lowest, common = _block(first_visible, T, T, ROWS)
    q += first.to(tl.int64) * q_T + head * q_H
    k_at, v_at = k + head // GROUP * k_H, v + head // GROUP * v_H
    k_step, v_step = tl.cast(k_T, tl.int64), tl.cast(v_T, tl.int64)
    q1 = _load(q + _offsets(q_T, ROWS, 0, D1), first, T, ROWS, EVEN)
    k1_at, v1_at = k_at + _offsets(k_T, STEP, 0, D1), v_at + _offsets(v_T, STEP, 0, D1)
    sum1 = tl.zeros([ROWS, D1], tl.float32)
    if D2 > 0:
        q2 = _load(q + _offsets(q_T, ROWS, D1, D2), first, T, ROWS, EVEN)
        k2_at, v2_at = k_at + _offsets(k_T, STEP, D1, D2), v_at + _offsets(v_T, STEP, D1, D2)
        sum2 = tl.zeros([ROWS, D2], tl.float32)
    top = tl.full(
        [ROWS], -1e30, tl.float32
    )  # finite: a row may meet blocks that it sees nothing of
    total = tl.zeros([ROWS], tl.float32)
    for start in range(lowest // STEP * STEP, tl.minimum(first + ROWS, T), STEP):
        k1 = _load(k1_at + start * k_step, start, T, STEP, EVEN)
        s = tl.dot(q1, tl.trans(k1))
        if D2 > 0:
            k2 = _load(k2_at + start * k_step, start, T, STEP, EVEN)
            s = tl.dot(q2, tl.trans(k2), s)
        if (not BRANCH) or (start < common) | (start + STEP > first + 1):
            j = start + tl.arange(0, STEP)
            seen = (j[None, :] <= i[:, None]) & (j[None, :] >= begin[:, None])
            s = tl.where(seen, s, float("-inf"))
        new_top = tl.maximum(top, tl.max(s, 1) * log2_scale)
        p = tl.exp2(s * log2_scale - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(p, 1)
        top = new_top
        p = p.to(v.dtype.element_ty)
        v1 = _load(v1_at + start * v_step, start, T, STEP, EVEN)
        sum1 = tl.dot(p, v1, sum1 * shrink[:, None])
        if D2 > 0:
            v2 = _load(v2_at + start * v_step, start, T, STEP, EVEN)
            sum2 = tl.dot(p, v2, sum2 * shrink[:, None])
    out += first.to(tl.int64) * out_T + head * out_H
    inverse = (1.0 / total)[:, None]
    _store(out + _offsets(out_T, ROWS, 0, D1), sum1 * inverse, first, T, ROWS, EVEN)
    if D2 > 0:
        _store(out + _offsets(out_T, ROWS, D1, D2), sum2 * inverse, first, T, ROWS, EVEN)
    tl.store(lse + head * T + i, top + tl.log2(total), i < T)


@triton.jit
def query_gradient(
    q, k, v, first_visible, out, dout, lse, delta, dq, T, log2_scale, scale,
    q_T, q_H, k_T, k_H, v_T, v_H, out_T, out_H,
    GROUP: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, ROWS: tl.constexpr,
    STEP: tl.constexpr, EVEN: tl.constexpr, BRANCH: tl.constexpr,
):  # fmt: skip
    """As `forward` goes; also writes delta, the sum over a head's columns of out * dout.

    dout and dq have out's strides.
    """
    first, head, i, begin, lowest, common = _block(first_visible, T, T, ROWS)
    q += first.to(tl.int64) * q_T + head * q_H
    k_at, v_at = k + head // GROUP * k_H, v + head // GROUP * v_H
    k_step, v_step = tl.cast(k_T, tl.int64), tl.cast(v_T, tl.int64)
    own = first.to(tl.int64) * out_T + head * out_H
    at1 = own + _offsets(out_T, ROWS, 0, D1)
    q1 = _load(q + _offsets(q_T, ROWS, 0, D1), first, T, ROWS, EVEN)
    g1 = _load(dout + at1, first, T, ROWS, EVEN)
    o1 = _load(out + at1, first, T, ROWS, EVEN)
    d = tl.sum(o1.to(tl.float32) * g1.to(tl.float32), 1)
    k1_at, v1_at = k_at + _offsets(k_T, STEP, 0, D1), v_at + _offsets(v_T, STEP, 0, D1)
    dq1 = tl.zeros([ROWS, D1], tl.float32)
    if D2 > 0:
        at2 = own + _offsets(out_T, ROWS, D1, D2)
        q2 = _load(q + _offsets(q_T, ROWS, D1, D2), first, T, ROWS, EVEN)
        g2 = _load(dout + at2, first, T, ROWS, EVEN)
        o2 = _load(out + at2, first, T, ROWS, EVEN)
        d += tl.sum(o2.to(tl.float32) * g2.to(tl.float32), 1)
        k2_at, v2_at = k_at + _offsets(k_T, STEP, D1, D2), v_at + _offsets(v_T, STEP, D1, D2)
        dq2 = tl.zeros([ROWS, D2], tl.float32)
    tl.store(delta + head * T + i, d, i < T)
    norm = tl.load(lse + head * T + i, i < T, 0.0)
    for start in range(lowest // STEP * STEP, tl.minimum(first + ROWS, T), STEP):
        k1 = _load(k1_at + start * k_step, start, T, STEP, EVEN)
        v1 = _load(v1_at + start * v_step, start, T, STEP, EVEN)
        s = tl.dot(q1, tl.trans(k1))
        dp = tl.dot(g1, tl.trans(v1))
        if D2 > 0:
            k2 = _load(k2_at + start * k_step, start, T, STEP, EVEN)
            v2 = _load(v2_at + start * v_step, start, T, STEP, EVEN)
            s = tl.dot(q2, tl.trans(k2), s)
            dp = tl.dot(g2, tl.trans(v2), dp)
        if (not BRANCH) or (start < common) | (start + STEP > first + 1):
            j = start + tl.arange(0, STEP)
            seen = (j[None, :] <= i[:, None]) & (j[None, :] >= begin[:, None])
            s = tl.where(seen, s, float("-inf"))
        p = tl.exp2(s * log2_scale - norm[:, None])
        ds = (p * (dp - d[:, None])).to(k.dtype.element_ty)
        dq1 = tl.dot(ds, k1, dq1)
        if D2 > 0:
            dq2 = tl.dot(ds, k2, dq2)
    _store(dq + at1, dq1 * scale, first, T, ROWS, EVEN)
    if D2 > 0:
        _store(dq + at2, dq2 * scale, first, T, ROWS, EVEN)


@triton.jit
def key_value_gradient(
    q, k, v, visible_end, dout, lse, delta, dk, dv, T, log2_scale, scale,
    q_T, q_H, k_T, k_H, v_T, v_H, dout_T, dout_H, dk_T, dk_H,
    GROUP: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, ROWS: tl.constexpr,
    STEP: tl.constexpr, EVEN: tl.constexpr, BRANCH: tl.constexpr,
):  # fmt: skip
    """One block of key positions of one key head: its query heads one after another, each block that sees it.

    Scores are transposed, [keys, queries], so that they multiply from registers. dv has dk's strides.
    """
    first, head, j, stop, common, highest = _block(visible_end, T, 0, ROWS)
    k += first.to(tl.int64) * k_T + head * k_H
    v += first.to(tl.int64) * v_T + head * v_H
    q_at, g_at = q + head * GROUP * q_H, dout + head * GROUP * dout_H
    q_step, g_step = tl.cast(q_T, tl.int64), tl.cast(dout_T, tl.int64)
    k1 = _load(k + _offsets(k_T, ROWS, 0, D1), first, T, ROWS, EVEN)
    v1 = _load(v + _offsets(v_T, ROWS, 0, D1), first, T, ROWS, EVEN)
    q1_at, g1_at = q_at + _offsets(q_T, STEP, 0, D1), g_at + _offsets(dout_T, STEP, 0, D1)
    dk1, dv1 = tl.zeros([ROWS, D1], tl.float32), tl.zeros([ROWS, D1], tl.float32)
    if D2 > 0:
        k2 = _load(k + _offsets(k_T, ROWS, D1, D2), first, T, ROWS, EVEN)
        v2 = _load(v + _offsets(v_T, ROWS, D1, D2), first, T, ROWS, EVEN)
        q2_at, g2_at = q_at + _offsets(q_T, STEP, D1, D2), g_at + _offsets(dout_T, STEP, D1, D2)
        dk2, dv2 = tl.zeros([ROWS, D2], tl.float32), tl.zeros([ROWS, D2], tl.float32)
    lowest = first // STEP * STEP
    blocks = tl.cdiv(highest - lowest, STEP)
    for step in range(0, GROUP * blocks):  # one loop over heads and blocks: loads run ahead of both
        of_group, start = step // blocks, lowest + step % blocks * STEP
        q_from, g_from = of_group * q_H + start * q_step, of_group * dout_H + start * g_step
        i = start + tl.arange(0, STEP)
        rows_at = (head * GROUP + of_group) * T + i
        if EVEN:
            norm, d = tl.load(lse + rows_at), tl.load(delta + rows_at)
        else:
            norm, d = tl.load(lse + rows_at, i < T, 0.0), tl.load(delta + rows_at, i < T, 0.0)
        q1 = _load(q1_at + q_from, start, T, STEP, EVEN)
        g1 = _load(g1_at + g_from, start, T, STEP, EVEN)
        s = tl.dot(k1, tl.trans(q1))
        dp = tl.dot(v1, tl.trans(g1))
        if D2 > 0:
            q2 = _load(q2_at + q_from, start, T, STEP, EVEN)
            g2 = _load(g2_at + g_from, start, T, STEP, EVEN)
            s = tl.dot(k2, tl.trans(q2), s)
            dp = tl.dot(v2, tl.trans(g2), dp)
        if (not BRANCH) or (start < first + ROWS - 1) | (start + STEP > common):
            seen = (i[None, :] >= j[:, None]) & (i[None, :] < stop[:, None])
            s = tl.where(seen, s, float("-inf"))
        p = tl.exp2(s * log2_scale - norm[None, :])
        ds = (p * (dp - d[None, :])).to(q.dtype.element_ty)
        p = p.to(dout.dtype.element_ty)
        dv1 = tl.dot(p, g1, dv1)
        dk1 = tl.dot(ds, q1, dk1)
        if D2 > 0:
            dv2 = tl.dot(p, g2, dv2)
            dk2 = tl.dot(ds, q2, dk2)
    own = first.to(tl.int64) * dk_T + head * dk_H
    at1 = own + _offsets(dk_T, ROWS, 0, D1)
    _store(dk + at1, dk1 * scale, first, T, ROWS, EVEN)
    _store(dv + at1, dv1, first, T, ROWS, EVEN)
    if D2 > 0:
        at2 = own + _offsets(dk_T, ROWS, D1, D2)
        _store(dk + at2, dk2 * scale, first, T, ROWS, EVEN)
        _store(dv + at2, dv2, first, T, ROWS, EVEN)

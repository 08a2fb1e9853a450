# pyright: reportArgumentType=false, reportOperatorIssue=false
"""The Triton kernels of attention over pages. Only paged.py imports this. Needs Triton.

Scores are kept in base 2: exp2 is what the hardware has. Letters in the kernels: rows are (new token,
head of the group) pairs of a tile, D width of a key, V width of a value, BLOCK_* powers of two above.
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

_LOG2_E = 1.4426950408889634
_SHARED_BYTES = 64 * 1024  # of keys and values that one stage of a program holds


@triton.jit(do_not_specialize=["splits"])
def _attend_tile(
    memory,
    table,
    plan,
    q,
    out,
    part,
    part_lse,
    scale_log2,
    splits,
    table_stride,
    slot_stride,
    value_offset,
    heads,
    GROUP: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_T: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile, one key/value head, one part of the keys: softmax(q k) v, online (Milakov 2018)."""
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    sequence = tl.load(plan + tile * 4).to(tl.int64)
    first = tl.load(plan + tile * 4 + 1)
    count = tl.load(plan + tile * 4 + 2)
    start = tl.load(plan + tile * 4 + 3)

    row = tl.arange(0, BLOCK_ROWS)
    token = row // GROUP
    head = kv_head * GROUP + row % GROUP
    live = token < count
    place = start + token
    q_row = ((first + token) * heads + head).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    v = tl.arange(0, BLOCK_V)
    q_tile = tl.load(
        q + q_row[:, None] * D + d[None, :], mask=live[:, None] & (d < D)[None, :], other=0.0
    )

    low = 0
    high = start + count
    if SPLIT:
        share = tl.cdiv(tl.cdiv(high, splits), BLOCK_T) * BLOCK_T
        low = tl.program_id(2) * share
        high = tl.minimum(low + share, high)

    best = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    acc = tl.zeros([BLOCK_ROWS, BLOCK_V], tl.float32)
    for begin in range(low, high, BLOCK_T):
        t = begin + tl.arange(0, BLOCK_T)
        inside = t < high
        page = tl.load(table + sequence * table_stride + t // PAGE, mask=inside, other=0)
        slot = (page.to(tl.int64) * PAGE + t % PAGE) * slot_stride
        key = tl.load(
            memory + slot[None, :] + kv_head * D + d[:, None],
            mask=inside[None, :] & (d < D)[:, None],
            other=0.0,
        )
        scores = tl.dot(q_tile, key, input_precision=PRECISION) * scale_log2
        seen = inside[None, :] & (t[None, :] <= place[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, 1))
        # A row that has seen nothing yet would give inf - inf.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weight = tl.exp2(scores - base[:, None])
        fade = tl.exp2(best - base)
        total = total * fade + tl.sum(weight, 1)
        value = tl.load(
            memory + slot[:, None] + value_offset + kv_head * D + v[None, :],
            mask=inside[:, None] & (v < V)[None, :],
            other=0.0,
        )
        acc = acc * fade[:, None]
        acc += tl.dot(weight.to(value.dtype), value, input_precision=PRECISION)
        best = higher

    stored = live[:, None] & (v < V)[None, :]
    safe = tl.where(total > 0, total, 1.0)
    result = acc / safe[:, None]
    if SPLIT:
        part_row = q_row * splits + tl.program_id(2)
        tl.store(part + part_row[:, None] * V + v[None, :], result, mask=stored)
        lse = tl.where(total > 0, best + tl.log2(safe), float("-inf"))
        tl.store(part_lse + part_row, lse, mask=live)
    else:
        tl.store(
            out + q_row[:, None] * V + v[None, :], result.to(out.dtype.element_ty), mask=stored
        )


@triton.jit
def _join_parts(
    plan,
    part,
    part_lse,
    out,
    heads,
    V: tl.constexpr,
    BLOCK_V: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One row of one head: the parts, each weighted by its share of the sum of exponentials."""
    first = tl.load(plan + tl.program_id(0) * 4 + 1)
    row = (first * heads + tl.program_id(1)).to(tl.int64)
    split = tl.arange(0, SPLITS)
    v = tl.arange(0, BLOCK_V)
    lse = tl.load(part_lse + row * SPLITS + split)
    share = tl.exp2(lse - tl.max(lse, 0))
    parts = tl.load(
        part + (row * SPLITS + split)[:, None] * V + v[None, :],
        mask=(v < V)[None, :],
        other=0.0,
    )
    result = tl.sum(parts * share[:, None], 0) / tl.sum(share, 0)
    tl.store(out + row * V + v, result.to(out.dtype.element_ty), mask=v < V)


def attend_tiles(
    memory: Tensor,
    table_RM: Tensor,
    plan_U4: Tensor,
    most_tokens: int,
    q_NHD: Tensor,
    out_NHV: Tensor,
    scale: float,
    splits: int,
) -> None:
    """Write the rows of `out_NHV` that belong to the tiles.

    Args:
        memory: [pages, page_size, X, K, D]; keys first along X, values last.
        table_RM, plan_U4: int32; see `paged.Tiles`.
        splits: a power of two; above 1 only with tiles of one token.
    """
    N, H, D = q_NHD.shape
    V, K, X = out_NHV.shape[2], memory.shape[3], memory.shape[2]
    group, block_d, block_v = H // K, _power_above(D), _power_above(V)
    part = part_lse = out_NHV
    if splits > 1:
        part = torch.empty(N, H, splits, V, dtype=torch.float32, device=q_NHD.device)
        part_lse = torch.empty(N, H, splits, dtype=torch.float32, device=q_NHD.device)
    fitting = _SHARED_BYTES // ((block_d + block_v) * memory.element_size())
    attend: Any = _attend_tile  # what the decorator makes takes more than the function says
    attend[(len(plan_U4), K, splits)](
        memory, table_RM, plan_U4, q_NHD, out_NHV, part, part_lse,
        scale * _LOG2_E, splits, table_RM.stride(0), memory.stride(1), (X - 1) * memory.stride(2), H,
        GROUP=group, BLOCK_ROWS=_power_above(most_tokens * group), D=D, BLOCK_D=block_d, V=V,
        BLOCK_V=block_v, PAGE=memory.shape[1], BLOCK_T=16 if fitting < 32 else 32 if fitting < 64 else 64,
        SPLIT=splits > 1, PRECISION="ieee" if memory.dtype == torch.float32 else "tf32",
        num_warps=4, num_stages=2 if fitting >= 32 else 1,
    )  # fmt: skip
    if splits > 1:
        join: Any = _join_parts
        join[(len(plan_U4), H)](
            plan_U4, part, part_lse, out_NHV, H, V=V, BLOCK_V=block_v, SPLITS=splits, num_warps=2
        )


def _power_above(number: int) -> int:
    """The least power of two that is not less, 16 at least, as `tl.dot` wants it."""
    return max(int(triton.next_power_of_2(number)), 16)

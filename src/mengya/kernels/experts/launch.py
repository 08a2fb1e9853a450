"""The experts' Triton kernels with their grids and tiles; fused_experts.py puts them together.

Takes tensors on a GPU (or anywhere in Triton's interpreter), gives new ones; knows nothing of autograd.
Shapes: N tokens, k experts per token, M = N*k rows, E experts, T pieces of rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Tile(NamedTuple):
    """Rows, columns and depth of a program's product; warps; operands held in shared memory at once."""

    m: int
    n: int
    k: int
    warps: int
    stages: int


TILES = {
    "gate_up": Tile(128, 128, 64, 8, 4),  # n gate columns and n up columns
    "product": Tile(128, 256, 64, 8, 4),
    "swiglu_backward": Tile(128, 128, 64, 8, 4),
    "weight_gradient": Tile(128, 256, 64, 8, 4),
}
# Pieces of work that a weight's gradient is cut into at least: four for each processor of an H100.
_PIECES = 528


def sort_rows(experts_Nk: Tensor, E: int) -> tuple[Tensor, Tensor]:
    """(order_M, ends_E) int32: rows n*k + choice in stable order of their expert, where each ends."""
    from mengya.kernels.experts import rows_triton as kernels

    experts_Nk = experts_Nk.contiguous()
    M, padded = experts_Nk.numel(), _padded(E)
    rows = max(32, min(1024, 8192 // padded))
    counts_EP = experts_Nk.new_empty(E, cdiv(M, rows), dtype=torch.int32)
    blocks, sizes = counts_EP.shape[1], {"ROWS": rows, "E_PAD": padded}
    launch(kernels.count, blocks, experts_Nk, counts_EP, M, E, **sizes)
    sums_EP = counts_EP.view(-1).cumsum(0, dtype=torch.int32).view_as(counts_EP)
    order_M = experts_Nk.new_empty(M, dtype=torch.int32)
    launch(kernels.place, blocks, experts_Nk, sums_EP, order_M, M, E, **sizes)
    return order_M, sums_EP[:, -1].contiguous()


def cut(ends_E: Tensor, M: int, size: int) -> Tensor:
    """Each expert's sorted rows in pieces of at most `size`: [T, 3] (expert, first, end).

    T is what M rows may need at most; the expert of a piece that is not needed is -1.
    """
    from mengya.kernels.experts import rows_triton as kernels

    E = len(ends_E)
    pieces_T3 = ends_E.new_empty(M // size + E, 3)
    T = len(pieces_T3)
    launch(
        kernels.cut, cdiv(T, 32), ends_E, pieces_T3, T, E, size, PIECES=32, E_PAD=_padded(E)
    )  # fmt: skip
    return pieces_T3


def product(
    a_MK: Tensor,
    weight: Tensor,
    order_M: Tensor,
    ends_E: Tensor,
    weights_Nk: Tensor | None,
    down: bool = False,
) -> Tensor:
    """Sorted rows times their expert's weight ([E, C, K] if `down`, else [E, K, C]), unsorted: [M, C]."""
    from mengya.kernels.experts import experts_triton as kernels

    M, K = a_MK.shape
    C = weight.shape[1 if down else 2]
    strides = (1, K) if down else (C, 1)
    tile = TILES["product"]
    tiles_T3 = cut(ends_E, M, tile.m)
    out_MC = a_MK.new_empty(M, C)
    scale = out_MC if weights_Nk is None else weights_Nk.contiguous()
    launch(
        kernels.product, len(tiles_T3) * cdiv(C, tile.n),
        a_MK, weight, out_MC, order_M, scale, tiles_T3, K, C, *strides,
        WEIGHTED=weights_Nk is not None, EVEN=K % tile.k == 0, **options(tile, tile.n),
    )  # fmt: skip
    return out_MC


def weight_gradient(
    left: Tensor, right: Tensor, order_M: Tensor, ends_E: Tensor, k: int, tokens_left: bool
) -> Tensor:
    """[E, A, B]: over each expert's rows, left.T @ right; one of the two has a row for each token.

    Where CUDA's grouped product has a kernel of its own, it is worth a sorted copy of the tokens' rows
    (4 x 2,432 on an H100: 1.22 ms instead of 1.87). Elsewhere rows are cut into chunks of fixed size, so
    that the work is even however uneven the load is; the chunks of an expert are then added in order.
    """
    if left.is_cuda and grouped_kernel_runs(left.device):
        tokens_M = order_M if k == 1 else order_M // k
        left = left[tokens_M] if tokens_left else left
        right = right if tokens_left else right[tokens_M]
        return F.grouped_mm(left.T, right, offs=ends_E)
    from mengya.kernels.experts import (
        experts_triton as expert_kernels,
    )
    from mengya.kernels.experts import (
        rows_triton as expert_row_kernels,
    )

    M, A, B, E = len(order_M), left.shape[1], right.shape[1], len(ends_E)
    tile = TILES["weight_gradient"]
    programs = cdiv(A, tile.m) * cdiv(B, tile.n)
    size = max(cdiv(M * programs, _PIECES * 512) * 512, 512)
    chunks_T3 = cut(ends_E, M, size)
    parts_TAB = left.new_empty(len(chunks_T3), A, B, dtype=torch.float32)
    chosen = options(tile, tile.n)
    chosen["num_stages"] = 2 * chosen["num_stages"] - 1  # row numbers are loaded first, then rows
    launch(
        expert_kernels.weight_gradient, len(chunks_T3) * programs,
        left, right, order_M, chunks_T3, parts_TAB, A, B, k, GATHER_LEFT=tokens_left, **chosen,
    )  # fmt: skip
    out_EAB = left.new_empty(E, A, B)
    launch(
        expert_row_kernels.add_chunks, (cdiv(A * B, 1024), E),
        parts_TAB, ends_E, out_EAB, A * B, size, E, BLOCK=1024, E_PAD=_padded(E),
    )  # fmt: skip
    return out_EAB


def grouped_kernel_runs(device: torch.device) -> bool:
    """Hopper and datacenter Blackwell; elsewhere `grouped_mm` is a loop that asks for sizes."""
    return torch.cuda.get_device_capability(device)[0] in (9, 10)


def add_choices(rows_MH: Tensor, k: int) -> Tensor:
    """[N, H]: the sum of each token's k rows."""
    from mengya.kernels.experts import rows_triton as kernels

    if k == 1:
        return rows_MH
    M, H = rows_MH.shape
    out_NH = rows_MH.new_empty(M // k, H)
    launch(kernels.add_choices, (M // k, cdiv(H, 1024)), rows_MH, out_NH, H, k, BLOCK=1024)
    return out_NH


def launch(
    kernel: Any, programs: int | tuple[int, int], *arguments: object, **sizes: object
) -> None:
    grid = programs if isinstance(programs, tuple) else (programs,)
    kernel[grid](*arguments, **sizes)


def options(tile: Tile, columns: int) -> dict[str, int]:
    """A tile as arguments of a kernel, with no more stages than shared memory has room for."""
    return {
        "BM": tile.m, "BN": tile.n, "BK": tile.k, "num_warps": tile.warps,
        "num_stages": min(
            tile.stages, _shared_memory(_device()) // ((tile.m + columns) * tile.k * 2)
        ),
    }  # fmt: skip


def _device() -> int | None:
    """The current GPU; None in Triton's interpreter."""
    return torch.cuda.current_device() if torch.cuda.is_available() else None


@cache  # asking the driver takes a millisecond, as long as a kernel
def _shared_memory(device: int | None) -> int:
    """Bytes that a program may use on a device."""
    if device is None:
        return 1 << 20
    from triton.runtime import driver  # pyright: ignore[reportMissingImports]

    utils: Any = driver.active.utils  # type: ignore[attr-defined]
    return utils.get_device_properties(device)["max_shared_mem"]


def _padded(E: int) -> int:
    """A power of two, 2 at least, as a tile's width must be."""
    from triton import next_power_of_2  # pyright: ignore[reportMissingImports]

    return max(int(next_power_of_2(E)), 2)


def cdiv(a: int, b: int) -> int:
    return -(-a // b)

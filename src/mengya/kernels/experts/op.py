"""The experts' sum in Triton kernels behind two operators, without sorted copies of the inputs.

The same function as `reference.grouped_experts`, in bf16 on CUDA; `torch.compile` sees two opaque
operators. First the operators, then the launch of each kernel with its grid and tile.
Shapes: N tokens, k experts per token, M = N*k rows, E experts, H hidden, I expert width, J = 2I, T pieces
of rows. A row is a (token, choice) pair, numbered n*k + choice.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.triton_available import has_triton
from mengya.runtime.integers import ceil_div

_HAS_TRITON = has_triton()
_MULTIPLE = 16  # of H and I: loads of 16 bytes and more


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


def is_supported(x_NH: Tensor, down_EHI: Tensor) -> bool:
    """bf16 on an NVIDIA device with Triton, and widths that are multiples of 32 bytes."""
    aligned = down_EHI.shape[1] % _MULTIPLE == 0 and down_EHI.shape[2] % _MULTIPLE == 0
    cuda = x_NH.is_cuda and torch.version.cuda is not None
    return _HAS_TRITON and cuda and aligned and x_NH.dtype == down_EHI.dtype == torch.bfloat16


def fused_experts(
    x_NH: Tensor, weights_Nk: Tensor, experts_Nk: Tensor, gate_up_EJH: Tensor, down_EHI: Tensor
) -> Tensor:
    """`grouped_experts`, where `is_supported`; weights_Nk are fp32."""
    learns = torch.is_grad_enabled()
    return _experts(x_NH, weights_Nk, experts_Nk, gate_up_EJH, down_EHI, learns)[0]


@torch.library.custom_op("mengya::experts", mutates_args=())
def _experts(
    x_NH: Tensor,
    weights_Nk: Tensor,
    experts_Nk: Tensor,
    gate_up_EJH: Tensor,
    down_EHI: Tensor,
    learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(out_NH, gate and up of each sorted row, order_M, ends_E); the last three are for backward."""
    from mengya.kernels.experts import experts_triton as kernels

    x_NH = x_NH.contiguous()
    (N, H), k = x_NH.shape, experts_Nk.shape[1]
    E, J, _ = gate_up_EJH.shape
    M, I = N * k, J // 2
    with torch.cuda.device_of(x_NH):
        order_M, ends_E = sort_rows(experts_Nk, E)
        gate_up_MJ = x_NH.new_empty(M if learns else 0, J)
        hidden_MI = x_NH.new_empty(M, I)
        tile = TILES["gate_up"]
        tiles_T3 = cut(ends_E, M, tile.m)
        launch(
            kernels.gate_up, len(tiles_T3) * ceil_div(I, tile.n),
            x_NH, gate_up_EJH.contiguous(), order_M, tiles_T3, gate_up_MJ, hidden_MI, H, I, k,
            SAVE=learns, EVEN=H % tile.k == 0, **options(tile, 2 * tile.n),
        )  # fmt: skip
        rows_MH = product(hidden_MI, down_EHI.contiguous(), order_M, ends_E, weights_Nk, down=True)
        return add_choices(rows_MH, k), gate_up_MJ, order_M, ends_E


@_experts.register_fake
def _(
    x_NH: Tensor,
    weights_Nk: Tensor,
    experts_Nk: Tensor,
    gate_up_EJH: Tensor,
    down_EHI: Tensor,
    learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    M = experts_Nk.shape[0] * experts_Nk.shape[1]
    E, J, _ = gate_up_EJH.shape
    order_M = experts_Nk.new_empty(M, dtype=torch.int32)
    ends_E = experts_Nk.new_empty(E, dtype=torch.int32)
    return x_NH.new_empty(x_NH.shape), x_NH.new_empty(M if learns else 0, J), order_M, ends_E


@torch.library.custom_op("mengya::experts_backward", mutates_args=())
def _experts_backward(
    dout_NH: Tensor,
    x_NH: Tensor,
    weights_Nk: Tensor,
    gate_up_EJH: Tensor,
    down_EHI: Tensor,
    gate_up_MJ: Tensor,
    order_M: Tensor,
    ends_E: Tensor,
    frozen: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weights, gate_up and down; the last two are empty when `frozen`."""
    from mengya.kernels.experts import experts_triton as kernels

    dout_NH, x_NH = dout_NH.contiguous(), x_NH.contiguous()
    weights_Nk, gate_up_EJH, down_EHI = (
        weights_Nk.contiguous(), gate_up_EJH.contiguous(), down_EHI.contiguous()
    )  # fmt: skip
    M, (H, I), k = len(order_M), down_EHI.shape[1:], weights_Nk.shape[1]
    with torch.cuda.device_of(x_NH):
        tile = TILES["swiglu_backward"]
        tiles_T3 = cut(ends_E, M, tile.m)
        columns = ceil_div(I, tile.n)
        dgate_up_MJ, weighted_MI = torch.empty_like(gate_up_MJ), x_NH.new_empty(M, I)
        dweights_MP = weights_Nk.new_empty(M, columns)
        launch(
            kernels.swiglu_backward, len(tiles_T3) * columns,
            dout_NH, down_EHI, order_M, weights_Nk, tiles_T3, gate_up_MJ,
            dgate_up_MJ, weighted_MI, dweights_MP, H, I, k,
            EVEN=H % tile.k == 0, **options(tile, tile.n),
        )  # fmt: skip
        dx_NH = add_choices(product(dgate_up_MJ, gate_up_EJH, order_M, ends_E, None), k)
        dweights_Nk = dweights_MP.sum(1).view_as(weights_Nk)
        if frozen:
            return dx_NH, dweights_Nk, x_NH.new_empty(0), x_NH.new_empty(0)
        dgate_up = weight_gradient(dgate_up_MJ, x_NH, order_M, ends_E, k, tokens_left=False)
        ddown = weight_gradient(dout_NH, weighted_MI, order_M, ends_E, k, tokens_left=True)
        return dx_NH, dweights_Nk, dgate_up, ddown


@_experts_backward.register_fake
def _(
    dout_NH: Tensor,
    x_NH: Tensor,
    weights_Nk: Tensor,
    gate_up_EJH: Tensor,
    down_EHI: Tensor,
    gate_up_MJ: Tensor,
    order_M: Tensor,
    ends_E: Tensor,
    frozen: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x_NH.new_empty(x_NH.shape),
        weights_Nk.new_empty(weights_Nk.shape),
        x_NH.new_empty(0 if frozen else gate_up_EJH.shape),
        x_NH.new_empty(0 if frozen else down_EHI.shape),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x_NH, weights_Nk, _, gate_up_EJH, down_EHI, _ = inputs
    ctx.save_for_backward(x_NH, weights_Nk, gate_up_EJH, down_EHI, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, dout_NH: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    frozen = not (ctx.needs_input_grad[3] or ctx.needs_input_grad[4])
    dx, dweights, dgate_up, ddown = _experts_backward(dout_NH, *ctx.saved_tensors, frozen)
    if frozen:
        return dx, dweights, None, None, None, None
    return dx, dweights, None, dgate_up, ddown, None


_experts.register_autograd(_backward, setup_context=_keep)


def sort_rows(experts_Nk: Tensor, E: int) -> tuple[Tensor, Tensor]:
    """(order_M, ends_E) int32: rows n*k + choice in stable order of their expert, where each ends."""
    from mengya.kernels.experts import experts_triton as kernels

    experts_Nk = experts_Nk.contiguous()
    M, padded = experts_Nk.numel(), _padded(E)
    rows = max(32, min(1024, 8192 // padded))
    counts_EP = experts_Nk.new_empty(E, ceil_div(M, rows), dtype=torch.int32)
    blocks, sizes = counts_EP.shape[1], {"ROWS": rows, "E_PAD": padded}
    launch(kernels.count, blocks, experts_Nk, counts_EP, M, E, **sizes)
    sums_EP = counts_EP.view(-1).cumsum(0, dtype=torch.int32).view_as(counts_EP)
    order_M = experts_Nk.new_empty(M, dtype=torch.int32)
    launch(kernels.place, blocks, experts_Nk, sums_EP, order_M, M, E, **sizes)
    return order_M, sums_EP[:, -1].contiguous()


def cut(ends_E: Tensor, M: int, size: int) -> Tensor:
    """Each expert's sorted rows in pieces of at most `size`: [T, 3] (expert, first, end).

    T is the most that M rows may need; the expert of an unused piece is -1.
    """
    from mengya.kernels.experts import experts_triton as kernels

    E = len(ends_E)
    pieces_T3 = ends_E.new_empty(M // size + E, 3)
    T = len(pieces_T3)
    launch(
        kernels.cut, ceil_div(T, 32), ends_E, pieces_T3, T, E, size, PIECES=32, E_PAD=_padded(E)
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
        kernels.product, len(tiles_T3) * ceil_div(C, tile.n),
        a_MK, weight, out_MC, order_M, scale, tiles_T3, K, C, *strides,
        WEIGHTED=weights_Nk is not None, EVEN=K % tile.k == 0, **options(tile, tile.n),
    )  # fmt: skip
    return out_MC


def weight_gradient(
    left: Tensor, right: Tensor, order_M: Tensor, ends_E: Tensor, k: int, tokens_left: bool
) -> Tensor:
    """[E, A, B]: over each expert's rows, left.T @ right; one of the two has a row for each token.

    Where CUDA has a kernel for the grouped product, it is worth a sorted copy of the tokens' rows (4 x 2,432
    on an H100: 1.22 ms instead of 1.87). Elsewhere rows are cut into chunks of fixed size, so
    that the work is even however uneven the load is; the chunks of an expert are then added in order.
    """
    if left.is_cuda and has_grouped_kernel(left.device):
        tokens_M = order_M if k == 1 else order_M // k
        left = left[tokens_M] if tokens_left else left
        right = right if tokens_left else right[tokens_M]
        return F.grouped_mm(left.T, right, offs=ends_E)
    from mengya.kernels.experts import experts_triton as kernels

    M, A, B, E = len(order_M), left.shape[1], right.shape[1], len(ends_E)
    tile = TILES["weight_gradient"]
    programs = ceil_div(A, tile.m) * ceil_div(B, tile.n)
    size = max(ceil_div(M * programs, _PIECES * 512) * 512, 512)
    chunks_T3 = cut(ends_E, M, size)
    parts_TAB = left.new_empty(len(chunks_T3), A, B, dtype=torch.float32)
    chosen = options(tile, tile.n)
    chosen["num_stages"] = 2 * chosen["num_stages"] - 1  # row numbers are loaded first, then rows
    launch(
        kernels.weight_gradient, len(chunks_T3) * programs,
        left, right, order_M, chunks_T3, parts_TAB, A, B, k, GATHER_LEFT=tokens_left, **chosen,
    )  # fmt: skip
    out_EAB = left.new_empty(E, A, B)
    launch(
        kernels.add_chunks, (ceil_div(A * B, 1024), E),
        parts_TAB, ends_E, out_EAB, A * B, size, E, BLOCK=1024, E_PAD=_padded(E),
    )  # fmt: skip
    return out_EAB


def has_grouped_kernel(device: torch.device) -> bool:
    """Hopper and datacenter Blackwell; elsewhere `grouped_mm` is a loop that waits for sizes."""
    return torch.cuda.get_device_capability(device)[0] in (9, 10)


def add_choices(rows_MH: Tensor, k: int) -> Tensor:
    """[N, H]: the sum of each token's k rows."""
    from mengya.kernels.experts import experts_triton as kernels

    if k == 1:
        return rows_MH
    M, H = rows_MH.shape
    out_NH = rows_MH.new_empty(M // k, H)
    launch(kernels.add_choices, (M // k, ceil_div(H, 1024)), rows_MH, out_NH, H, k, BLOCK=1024)
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

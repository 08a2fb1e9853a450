"""Causal attention of packed documents: what each position sees, and who computes it.

`packed_documents` turns boundaries into what the kernel of the device wants, once for all layers;
`attend_documents` runs it: our Triton kernels (document_kernels.py), or FlashAttention 2 (varlen.py)
for widths and builds that they do not serve. On half precision and CUDA; elsewhere the plan has a mask.
Shapes: B rows, S positions, T = B*S, H query heads, K key heads, D head width, N documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mengya.kernels.attention.varlen import varlen_attention
from mengya.kernels.triton_available import has_triton

_HAS_TRITON = has_triton()
_LOG2_E = 1.4426950408889634
_WIDEST = 128  # wider heads do not fit the registers with both gradients beside the scores


class Blocks(NamedTuple):
    """How a kernel is cut.

    Attributes:
        rows: positions of a program; a multiple of `step` or a divisor of it.
        step: positions of one step of its loop.
        warps: of a program.
        stages: steps whose operands are in shared memory at once.
        branch: compare positions only in blocks at a border; else in all of them.
    """

    rows: int
    step: int
    warps: int
    stages: int
    branch: bool


# kernel -> widest head -> blocks: the fastest of 18 on an H100, found by benchmarks/attention_speed.py
# --tune. Several small programs a processor hide each other's softmax and waits.
BLOCKS: dict[str, dict[int, Blocks]] = {
    "forward": {
        64: Blocks(64, 64, 4, 3, True),
        96: Blocks(64, 32, 4, 3, True),
        128: Blocks(64, 64, 4, 3, True),
    },
    "query_gradient": {
        48: Blocks(64, 64, 4, 3, True),
        64: Blocks(64, 32, 4, 3, True),
        96: Blocks(64, 32, 4, 4, True),
        128: Blocks(64, 64, 4, 2, False),
    },
    "key_value_gradient": {
        48: Blocks(64, 32, 4, 3, False),
        64: Blocks(64, 64, 4, 3, True),
        96: Blocks(64, 32, 4, 3, False),
        128: Blocks(64, 32, 4, 3, False),
    },
}


@dataclass(frozen=True, slots=True)
class Documents:
    """Documents in the T flattened positions, for one of the two kernels.

    Attributes:
        begins: [T] int32, the first position that each sees (the last is itself): for our kernels.
        stops: [T] int32, one past the last position that sees it.
        cu_seqlens: [N + 1] int32 boundaries: for FlashAttention 2.
        window: with cu_seqlens, how many positions each sees, itself included; None: all before it.
    """

    begins: Tensor | None = None
    stops: Tensor | None = None
    cu_seqlens: Tensor | None = None
    window: int | None = None


def kernel_serves(width: int) -> bool:
    """Whether our kernels take heads of `width`: 16 to 128, at most two powers of two >= 16."""
    second = width - _first_part(width)
    return _HAS_TRITON and 16 <= width <= _WIDEST and width % 16 == 0 and second & (second - 1) == 0


def boundaries_serve(width: int, dtype: torch.dtype) -> bool:
    """Whether one of the two kernels takes heads of `width` on CUDA, so that no mask is needed."""
    return dtype in (torch.bfloat16, torch.float16) and width % 8 == 0 and width <= 256


def packed_documents(cu_seqlens: Tensor, T: int, width: int, window: int | None) -> Documents:
    """For heads of `width`; nothing waits for the device.

    Args:
        cu_seqlens: [N + 1] int32 from 0, never falling; empty documents at the end change nothing.
        T: positions of all rows; what lies past the last boundary is one more document.
        window: how many positions each sees, itself included; None: all before it in its document.
    """
    if not kernel_serves(width) or torch.version.cuda is None:
        if not torch.compiler.is_compiling():  # their number is no shape to compile anew for
            torch._dynamo.mark_dynamic(cu_seqlens, 0)
        return Documents(cu_seqlens=cu_seqlens, window=window)
    return Documents(*visible_ranges(cu_seqlens, T, window))


def visible_ranges(cu_seqlens: Tensor, T: int, window: int | None) -> tuple[Tensor, Tensor]:
    """(begins, stops) of `Documents`."""
    t = torch.arange(T, dtype=torch.int32, device=cu_seqlens.device)
    # All boundaries and not a slice of them, which the compiler's searchsorted cannot read.
    after = torch.searchsorted(cu_seqlens, t, right=True)
    borders = torch.cat((cu_seqlens, cu_seqlens.new_full((1,), T)))
    begins, stops = borders[after - 1], borders[after]
    if window is not None:
        begins, stops = torch.maximum(begins, t - (window - 1)), torch.minimum(stops, t + window)
    return begins, stops


def attend_documents(
    q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, documents: Documents, scale: float | None = None
) -> Tensor:
    """Each position attends to itself and what it sees before, [B, S, H, D]; all of one dtype.

    Args:
        scale: of the scores, above 0; None: D ** -0.5.
    """
    B, S = q_BSHD.shape[:2]
    q, k, v = (t.flatten(0, 1) for t in (q_BSHD, k_BSKD, v_BSKD))
    if documents.begins is not None and documents.stops is not None:
        out = document_attention(q, k, v, documents.begins, documents.stops, scale)
    else:
        assert documents.cu_seqlens is not None
        out = varlen_attention(q, k, v, documents.cu_seqlens, S, scale, documents.window)
    return out.unflatten(0, (B, S))


def document_attention(
    q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, begins: Tensor, stops: Tensor,
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """[T, H, D], contiguous: flash attention in Triton, the same bits each time.

    Args:
        q_THD, k_TKD, v_TKD: CUDA, D as `kernel_serves` says, dense in D; H a multiple of K.
        begins, stops: [T] int32, never falling (see `Documents`).
        scale: of the scores, above 0; None: D ** -0.5.
    """
    scale = q_THD.shape[-1] ** -0.5 if scale is None else scale
    return torch.ops.mengya.document_attention(q_THD, k_TKD, v_TKD, begins, stops, scale)[0]


@torch.library.custom_op("mengya::document_attention", mutates_args=())
def _forward(
    q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, begins: Tensor, stops: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """(out [T, H, D], log2 of the sum of exp of each row's scores [H, T] fp32)"""
    q, k, v = (_dense(t) for t in (q_THD, k_TKD, v_TKD))
    T, H, D = q.shape
    out, lse = q.new_empty(T, H, D), q.new_empty(H, T, dtype=torch.float32)
    launch(
        "forward", T, H, D, H // k.shape[1],
        q, k, v, begins, out, lse, T, scale * _LOG2_E, *_strides(q, k, v, out),
    )  # fmt: skip
    return out, lse


@_forward.register_fake
def _(
    q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, begins: Tensor, stops: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    T, H, D = q_THD.shape
    return q_THD.new_empty(T, H, D), q_THD.new_empty(H, T, dtype=torch.float32)


@torch.library.custom_op("mengya::document_attention_backward", mutates_args=())
def _backward(
    dout: Tensor, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, out: Tensor, lse: Tensor,
    begins: Tensor, stops: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and v."""
    dout, out = dout.contiguous(), out.contiguous()
    q, k, v = (_dense(t) for t in (q_THD, k_TKD, v_TKD))
    (T, H, D), K = q.shape, k.shape[1]
    dq, dk, dv = (t.new_empty(t.shape) for t in (q, k, v))
    delta, scales = torch.empty_like(lse), (scale * _LOG2_E, scale)
    launch(
        "query_gradient", T, H, D, H // K,
        q, k, v, begins, out, dout, lse, delta, dq, T, *scales, *_strides(q, k, v, out),
    )  # fmt: skip
    launch(
        "key_value_gradient", T, K, D, H // K,
        q, k, v, stops, dout, lse, delta, dk, dv, T, *scales, *_strides(q, k, v, dout, dk),
    )  # fmt: skip
    return dq, dk, dv


@_backward.register_fake
def _(
    dout: Tensor, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, out: Tensor, lse: Tensor,
    begins: Tensor, stops: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    dq, dk, dv = (t.new_empty(t.shape) for t in (q_THD, k_TKD, v_TKD))
    return dq, dk, dv


def launch(name: str, T: int, heads: int, D: int, group: int, *arguments: Any) -> None:
    """Start a kernel of document_kernels.py on `arguments`, one row of programs a head."""
    from mengya.kernels.attention import document_triton as document_kernels

    blocks = next(blocks for widest, blocks in BLOCKS[name].items() if widest >= D)
    kernel: Any = getattr(document_kernels, name)
    with torch.cuda.device_of(arguments[0]):
        kernel[(-(-T // blocks.rows), heads)](*arguments, **options(blocks, T, D, group))


def options(blocks: Blocks, T: int, D: int, group: int) -> dict[str, Any]:
    """What a kernel is compiled for; `group` query heads share a key head."""
    first = _first_part(D)
    return {
        "GROUP": group, "D1": first, "D2": D - first, "ROWS": blocks.rows, "STEP": blocks.step,
        "EVEN": T % blocks.rows == 0 and T % blocks.step == 0, "BRANCH": blocks.branch,
        "num_warps": blocks.warps, "num_stages": blocks.stages,
    }  # fmt: skip


def _first_part(width: int) -> int:
    """The largest power of two in it."""
    return 1 << (width.bit_length() - 1)


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for x in tensors for stride in x.stride()[:2]]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, begins, stops, scale = inputs
    ctx.save_for_backward(q, k, v, *output, begins, stops)
    ctx.scale = scale
    ctx.set_materialize_grads(False)


def _autograd(ctx: Any, dout: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dout is None:
        return (None,) * 6
    gradients = torch.ops.mengya.document_attention_backward(dout, *ctx.saved_tensors, ctx.scale)
    return *gradients, None, None, None


_forward.register_autograd(_autograd, setup_context=_keep)

"""Causal attention of packed documents, given by their boundaries: nothing is computed across documents.

`document_pattern` prepares boundaries for all layers, for our Triton kernels (document_triton.py) or for
FlashAttention 2 (varlen.py). CUDA and half precision; elsewhere see `dense.document_mask`.
Shapes: B rows, S positions, T = B*S, H query heads, K key heads, D head width, N documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.attention.varlen import varlen_attention
from mengya.kernels.triton_available import has_triton
from mengya.runtime.integers import ceil_div

_HAS_TRITON = has_triton()
_LOG2_E = 1.4426950408889634
_WIDEST = 128  # wider heads do not fit the registers with both gradients and the scores


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
class DocumentRanges:
    """Documents in the T flattened positions, for our kernels.

    Attributes:
        first_visible: [T] int32, the first position that each sees (the last is itself).
        visible_end: [T] int32, one past the last position that sees it.
    """

    first_visible: Tensor
    visible_end: Tensor
    packed: ClassVar[bool] = True

    def attend(
        self, q_BSHD: Tensor, k_BTKD: Tensor, v_BTKV: Tensor, scale: float | None = None
    ) -> Tensor:
        """As `AttentionPattern.attend`."""
        scale = q_BSHD.shape[-1] ** -0.5 if scale is None else scale
        q, k, v = _flattened(q_BSHD, k_BTKD, v_BTKV)
        out = document_attention(q, k, v, self.first_visible, self.visible_end, scale)
        return _unflattened(out, q_BSHD, v_BTKV)


@dataclass(frozen=True, slots=True)
class DocumentBoundaries:
    """Documents in the T flattened positions, for FlashAttention 2.

    Attributes:
        cu_seqlens: [N + 1] int32 boundaries.
        window: how many positions each sees, itself included; None: all before it.
    """

    cu_seqlens: Tensor
    window: int | None
    packed: ClassVar[bool] = True

    def attend(
        self, q_BSHD: Tensor, k_BTKD: Tensor, v_BTKV: Tensor, scale: float | None = None
    ) -> Tensor:
        """As `AttentionPattern.attend`."""
        scale = q_BSHD.shape[-1] ** -0.5 if scale is None else scale
        q, k, v = _flattened(q_BSHD, k_BTKD, v_BTKV)
        longest = q_BSHD.shape[1]
        out = varlen_attention(q, k, v, self.cu_seqlens, longest, scale, self.window)
        return _unflattened(out, q_BSHD, v_BTKV)


def is_supported(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether one of the two kernels takes heads of `width`, so that no mask is needed."""
    half = dtype in (torch.bfloat16, torch.float16)
    return device.type == "cuda" and half and width % 8 == 0 and width <= 256


def is_supported_by_triton(width: int) -> bool:
    """Whether our kernels take heads of `width`: 16 to 128, at most two powers of two >= 16."""
    second = width - _first_part(width)
    return _HAS_TRITON and 16 <= width <= _WIDEST and width % 16 == 0 and second & (second - 1) == 0


def document_pattern(
    cu_seqlens: Tensor, T: int, width: int, window: int | None
) -> DocumentRanges | DocumentBoundaries:
    """For heads of `width`; nothing waits for the device.

    Args:
        cu_seqlens: [N + 1] int32 from 0, never falling; empty documents at the end change nothing.
        T: positions of all rows; what lies past the last boundary is one more document.
        window: how many positions each sees, itself included; None: all before it in its document.
    """
    if not is_supported_by_triton(width) or torch.version.cuda is None:
        if not torch.compiler.is_compiling():  # no recompilation for each number of documents
            torch._dynamo.mark_dynamic(cu_seqlens, 0)
        return DocumentBoundaries(cu_seqlens, window)
    return DocumentRanges(*visible_ranges(cu_seqlens, T, window))


def visible_ranges(cu_seqlens: Tensor, T: int, window: int | None) -> tuple[Tensor, Tensor]:
    """(first_visible, visible_end) of `DocumentRanges`."""
    t = torch.arange(T, dtype=torch.int32, device=cu_seqlens.device)
    # All boundaries and not a slice of them, which the compiler's searchsorted cannot read.
    after = torch.searchsorted(cu_seqlens, t, right=True)
    borders = torch.cat((cu_seqlens, cu_seqlens.new_full((1,), T)))
    first, end = borders[after - 1], borders[after]
    if window is not None:
        first, end = torch.maximum(first, t - (window - 1)), torch.minimum(end, t + window)
    return first, end


def document_attention(
    q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, first_visible: Tensor, visible_end: Tensor,
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """[T, H, D], contiguous: flash attention in Triton, the same bits each time.

    Args:
        q_THD, k_TKD, v_TKD: CUDA, D as `is_supported_by_triton` says, dense in D; H a multiple of K.
        first_visible, visible_end: [T] int32, never falling (see `DocumentRanges`).
        scale: of the scores, above 0; None: D ** -0.5.
    """
    scale = q_THD.shape[-1] ** -0.5 if scale is None else scale
    return torch.ops.mengya.document_attention(
        q_THD, k_TKD, v_TKD, first_visible, visible_end, scale
    )[0]


@torch.library.custom_op("mengya::document_attention", mutates_args=())
def _forward(
    q_THD: Tensor,
    k_TKD: Tensor,
    v_TKD: Tensor,
    first_visible: Tensor,
    visible_end: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(out [T, H, D], log2 of the sum of exp of each row's scores [H, T] fp32)"""
    q, k, v = (_dense(t) for t in (q_THD, k_TKD, v_TKD))
    T, H, D = q.shape
    out, lse = q.new_empty(T, H, D), q.new_empty(H, T, dtype=torch.float32)
    launch(
        "forward", T, H, D, H // k.shape[1],
        q, k, v, first_visible, out, lse, T, scale * _LOG2_E, *_strides(q, k, v, out),
    )  # fmt: skip
    return out, lse


@_forward.register_fake
def _(
    q_THD: Tensor,
    k_TKD: Tensor,
    v_TKD: Tensor,
    first_visible: Tensor,
    visible_end: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    T, H, D = q_THD.shape
    return q_THD.new_empty(T, H, D), q_THD.new_empty(H, T, dtype=torch.float32)


@torch.library.custom_op("mengya::document_attention_backward", mutates_args=())
def _backward(
    dout: Tensor, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, out: Tensor, lse: Tensor,
    first_visible: Tensor, visible_end: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and v."""
    dout, out = dout.contiguous(), out.contiguous()
    q, k, v = (_dense(t) for t in (q_THD, k_TKD, v_TKD))
    (T, H, D), K = q.shape, k.shape[1]
    dq, dk, dv = (t.new_empty(t.shape) for t in (q, k, v))
    delta, scales = torch.empty_like(lse), (scale * _LOG2_E, scale)
    launch(
        "query_gradient", T, H, D, H // K,
        q, k, v, first_visible, out, dout, lse, delta, dq, T, *scales, *_strides(q, k, v, out),
    )  # fmt: skip
    launch(
        "key_value_gradient", T, K, D, H // K,
        q, k, v, visible_end, dout, lse, delta, dk, dv, T, *scales, *_strides(q, k, v, dout, dk),
    )  # fmt: skip
    return dq, dk, dv


@_backward.register_fake
def _(
    dout: Tensor, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, out: Tensor, lse: Tensor,
    first_visible: Tensor, visible_end: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    dq, dk, dv = (t.new_empty(t.shape) for t in (q_THD, k_TKD, v_TKD))
    return dq, dk, dv


def launch(name: str, T: int, heads: int, D: int, group: int, *arguments: Any) -> None:
    """Start a kernel of document_triton.py on `arguments`, one row of programs a head."""
    from mengya.kernels.attention import document_triton

    blocks = next(blocks for widest, blocks in BLOCKS[name].items() if widest >= D)
    kernel: Any = getattr(document_triton, name)
    with torch.cuda.device_of(arguments[0]):
        kernel[(ceil_div(T, blocks.rows), heads)](*arguments, **options(blocks, T, D, group))


def options(blocks: Blocks, T: int, D: int, group: int) -> dict[str, Any]:
    """What a kernel is compiled for; `group` query heads share a key head."""
    first = _first_part(D)
    return {
        "GROUP": group, "D1": first, "D2": D - first, "ROWS": blocks.rows, "STEP": blocks.step,
        "EVEN": T % blocks.rows == 0 and T % blocks.step == 0, "BRANCH": blocks.branch,
        "num_warps": blocks.warps, "num_stages": blocks.stages,
    }  # fmt: skip


def _flattened(*heads: Tensor) -> list[Tensor]:
    """[B, S, heads, width] -> [B*S, heads, width], zeros beyond the narrower widths.

    The kernels want one width; zeros add nothing to any sum.
    """
    width = max(x.shape[-1] for x in heads)
    padded = [x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1])) for x in heads]
    return [x.flatten(0, 1) for x in padded]


def _unflattened(out_THD: Tensor, q_BSHD: Tensor, v_BTKV: Tensor) -> Tensor:
    out = out_THD.unflatten(0, q_BSHD.shape[:2])
    return out if out.shape[-1] == v_BTKV.shape[-1] else out[..., : v_BTKV.shape[-1]]


def _first_part(width: int) -> int:
    """The largest power of two in it."""
    return 1 << (width.bit_length() - 1)


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for x in tensors for stride in x.stride()[:2]]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, first_visible, visible_end, scale = inputs
    ctx.save_for_backward(q, k, v, *output, first_visible, visible_end)
    ctx.scale = scale
    ctx.set_materialize_grads(False)


def _autograd(ctx: Any, dout: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dout is None:
        return (None,) * 6
    gradients = torch.ops.mengya.document_attention_backward(dout, *ctx.saved_tensors, ctx.scale)
    return *gradients, None, None, None


_forward.register_autograd(_autograd, setup_context=_keep)

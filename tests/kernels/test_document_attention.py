"""Attention of packed documents against masked SDPA in fp32: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

import itertools
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.attention import document as module
from mengya.kernels.attention.document import Blocks, document_attention, visible_ranges
from mengya.models.extensions.shifted_groups import group_boundaries
from tests.helpers.triton_interpreter import Interpret


class Case(NamedTuple):
    lengths: tuple[int, ...]  # of documents; zeros are empty ones at the end
    heads: int
    kv_heads: int
    width: int
    window: int | None = None
    scale: float | None = None
    strided: bool = False

    @property
    def T(self) -> int:
        return sum(self.lengths)


CASES = [
    Case((64,), 2, 2, 16),
    Case((1, 1, 30, 17, 1, 14, 0, 0), 4, 2, 48, strided=True),
    Case((5, 33, 1, 38), 4, 1, 96),  # T is no multiple of the blocks
    Case((40, 56), 2, 1, 64, window=7, strided=True),
    Case((7,), 1, 1, 80, scale=0.3),
    Case((20, 3, 50), 4, 2, 32, window=2),
    Case((64, 32), 4, 2, 16, window=24, scale=0.2),
]


def boundaries(lengths: tuple[int, ...]) -> Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


def mask_of(case: Case) -> Tensor:
    document = torch.arange(len(case.lengths)).repeat_interleave(torch.tensor(case.lengths))
    t = torch.arange(case.T)
    seen = (document[:, None] == document) & (t[:, None] >= t)
    return seen if case.window is None else seen & (t[:, None] - t < case.window)


def inputs(case: Case, dtype: torch.dtype, device: str) -> list[Tensor]:
    """q, k, v and the gradient of the output, the same numbers in every dtype."""
    generator = torch.Generator().manual_seed(case.T)
    made = []
    for heads in (case.heads, case.kv_heads, case.kv_heads, case.heads):
        x = torch.randn(case.T, 2 * heads, case.width, generator=generator).half().to(device, dtype)
        made.append(x[:, heads:] if case.strided else x[:, heads:].contiguous())
    return made


def results(case: Case, dtype: torch.dtype, device: str) -> list[Tensor]:
    """The output and the gradients of q, k and v."""
    *leaves, dout = inputs(case, dtype, device)
    q, k, v = (leaf.requires_grad_() for leaf in leaves)
    first_visible, visible_end = visible_ranges(
        boundaries(case.lengths).to(device), case.T, case.window
    )
    out = document_attention(q, k, v, first_visible, visible_end, case.scale)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), dout)]


def expected(case: Case, dtype: torch.dtype, device: str) -> list[Tensor]:
    """The same from SDPA in fp32, of inputs rounded to `dtype`."""
    *leaves, dout = (x.float() for x in inputs(case, dtype, device))
    q, k, v = (leaf.requires_grad_() for leaf in leaves)
    q_1HTD, k_1KTD, v_1KTD = (x.transpose(0, 1)[None] for x in (q, k, v))
    out = F.scaled_dot_product_attention(
        q_1HTD, k_1KTD, v_1KTD, mask_of(case).to(device), scale=case.scale, enable_gqa=True
    )[0].transpose(0, 1)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), dout)]


def check(cases: list[Case], dtype: torch.dtype, device: str, tolerance: float) -> None:
    for case in cases:
        ours, exact = results(case, dtype, device), expected(case, dtype, device)
        for name, a, b in zip(("out", "dq", "dk", "dv"), ours, exact, strict=True):
            assert a.dtype == dtype and a.shape == b.shape
            error = (a.float() - b).norm() / b.norm().clamp(min=1e-6)
            assert error < tolerance, f"{case} {name}: relative error {error:.2e}"
            assert (a.float() - b).abs().max() < 10 * tolerance * b.abs().max(), f"{case} {name}"


def interpreted() -> None:
    """In the interpreter: blocks of three shapes, so that borders lie everywhere."""
    shapes = (Blocks(16, 16, 4, 2, True), Blocks(32, 16, 4, 2, False), Blocks(16, 32, 4, 2, True))
    for blocks, cases in zip(shapes, (CASES, CASES[2:4], CASES[1:5:3]), strict=True):
        with patch.dict(module.BLOCKS, {kernel: {128: blocks} for kernel in module.BLOCKS}):
            check(cases, torch.float32, "cpu", 1e-5)
    check(CASES[1:3], torch.float16, "cpu", 3e-3)  # it knows no products of bf16
    case = CASES[1]
    q, k, v, _ = (x.requires_grad_() for x in inputs(case, torch.float32, "cpu"))
    ranges = visible_ranges(boundaries(case.lengths), case.T, case.window)
    torch.library.opcheck(torch.ops.mengya.document_attention.default, (q, k, v, *ranges, 0.2))


def test_kernels_equal_masked_sdpa_in_the_interpreter(interpret: Interpret) -> None:
    interpret(interpreted)


def test_ranges_say_what_the_mask_says() -> None:
    for case in CASES:
        first_visible, visible_end = visible_ranges(boundaries(case.lengths), case.T, case.window)
        t, mask = torch.arange(case.T), mask_of(case)
        assert torch.equal((t >= first_visible[:, None]) & (t <= t[:, None]), mask)
        assert torch.equal((t >= t[:, None]) & (t < visible_end[:, None]), mask.T)
        assert first_visible.dtype == visible_end.dtype == torch.int32


def test_positions_past_the_last_boundary_are_a_document() -> None:
    first_visible, visible_end = visible_ranges(torch.tensor([0, 3], dtype=torch.int32), 5, None)
    assert first_visible.tolist() == [0, 0, 0, 3, 3]
    assert visible_end.tolist() == [3, 3, 3, 5, 5]


@pytest.mark.parametrize(
    ("width", "supported"),
    [
        *((width, True) for width in (16, 48, 80, 96, 128)),
        *((width, False) for width in (8, 24, 112, 256)),
    ],
)
def test_widths_that_need_no_padding_are_supported(width: int, supported: bool) -> None:
    pytest.importorskip("triton")
    assert module.is_supported_by_triton(width) == supported


LARGE = [
    Case((1000, 64, 3, 1, 800, 180, 0), 8, 4, 96),
    Case((700, 324, 129, 1000), 8, 2, 64, window=200, strided=True),  # T is no multiple of 64
    Case((2048,), 4, 1, 128, scale=0.1),
    Case((130, 126, 1024, 768), 4, 2, 48),
    Case((512, 512), 2, 2, 16),
]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_equal_masked_sdpa_on_the_gpu(dtype: torch.dtype) -> None:
    torch.set_float32_matmul_precision("highest")
    check(LARGE, dtype, "cuda", 1e-2 if dtype == torch.bfloat16 else 2e-3)
    for case in LARGE[:2]:
        for a, b in zip(results(case, dtype, "cuda"), results(case, dtype, "cuda"), strict=True):
            assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_into_one_graph_it_says_the_same() -> None:
    case = LARGE[0]
    *leaves, dout = inputs(case, torch.bfloat16, "cuda")
    q, k, v = (leaf.requires_grad_() for leaf in leaves)
    ranges = visible_ranges(boundaries(case.lengths).cuda(), case.T, None)

    def layer(
        q: Tensor, k: Tensor, v: Tensor, first_visible: Tensor, visible_end: Tensor
    ) -> Tensor:
        return document_attention(q * 2, k, v, first_visible, visible_end, None).mul(0.5)

    found = []
    for function in (layer, torch.compile(layer, fullgraph=True)):
        out = function(q, k, v, *ranges)
        found.append([out.detach(), *torch.autograd.grad(out, (q, k, v), dout)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-2)


def test_the_compiler_finds_the_same_ranges() -> None:
    cu_seqlens = torch.tensor([0, 50, 51, 128, 131, 192, 256, 256, 256], dtype=torch.int32)
    groups = (torch.arange(256) // 16).view(4, 64)

    def ranges(cu_seqlens: Tensor, groups: Tensor) -> tuple[Tensor, ...]:
        finer = group_boundaries(groups, cu_seqlens, 16)
        return *visible_ranges(finer, 256, 20), *visible_ranges(cu_seqlens, 256, None)

    plain = ranges(cu_seqlens, groups)
    for ours, compiled in zip(
        plain, torch.compile(ranges, fullgraph=True)(cu_seqlens, groups), strict=True
    ):
        assert torch.equal(ours, compiled)
    first_visible, visible_end = plain[2:]
    assert (
        first_visible[49],
        visible_end[49],
        first_visible[51],
        visible_end[51],
        first_visible[200],
    ) == (0, 50, 51, 128, 192)

"""The Triton kernels of attention over pages against plain PyTorch: in Triton's interpreter, and on a GPU."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from mengya.kernels.attention.paged import KernelAttention, split_count
from mengya.kernels.attention.paged_reference import PlainAttention
from tests.helpers.triton_interpreter import Interpret

MIXED = [(0, 1), (99, 1), (64, 1), (0, 40), (33, 70)]  # (tokens before, new tokens)
ROWS = [(0, 1), (5, 1), (150, 1), (63, 1), (64, 1)]
# Key heads, heads of a group, widths of keys and values, tokens of a page. The last is of latent
# attention: one key for all heads, whose beginning is the value.
SHAPES = [(2, 2, 16, 16, 16), (1, 3, 24, 24, 4), (4, 1, 96, 96, 16), (1, 8, 40, 32, 8)]

over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
over_spans = pytest.mark.parametrize("spans", [MIXED, ROWS], ids=["mixed", "rows"])


def check(
    spans: list[tuple[int, int]], shape: tuple[int, int, int, int, int], device: torch.device
) -> None:
    """Prompts in chunks and single tokens; single tokens also as the decode graphs plan them."""
    kv_heads, group, key_width, value_width, page_size = shape
    draw = torch.Generator().manual_seed(0)
    kinds = 2 if key_width == value_width else 1
    starts, counts = np.array(spans).T
    width = int(-(-(starts + counts).max() // page_size)) + 3
    pages = len(spans) * width
    memory = torch.randn(pages, page_size, kinds, kv_heads, key_width, generator=draw).to(device)
    tables = torch.randperm(pages, generator=draw).view(len(spans), width).int().numpy()
    q = torch.randn(int(counts.sum()), kv_heads * group, key_width, generator=draw).to(device)
    rows = np.arange(len(spans)).repeat(counts)
    places = np.concatenate([np.arange(start, start + count) for start, count in spans])
    slots = tables[rows, places // page_size].astype(np.int64) * page_size + places % page_size
    new = memory.flatten(0, 1)[torch.from_numpy(slots).to(device)]
    plan = (page_size, value_width, tables, starts, counts, torch.float32, device)
    expected = PlainAttention(*plan).attend(memory, q, new, 0.2)
    torch.testing.assert_close(
        KernelAttention(*plan).attend(memory, q, new, 0.2), expected, atol=2e-5, rtol=1e-5
    )
    if (counts == 1).all():
        table, place = (torch.from_numpy(x).int().to(device) for x in (tables, starts))
        planned = KernelAttention.of_rows(page_size, value_width, table, place)
        out = planned.attend(memory, q, new, 0.2)
        torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-5)


@over_spans
@over_shapes
def test_kernels_equal_plain_attention_in_the_interpreter(
    spans: list[tuple[int, int]], shape: tuple[int, int, int, int, int], interpret: Interpret
) -> None:
    interpret(partial(check, spans, shape, torch.device("cpu")))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@over_spans
@over_shapes
def test_kernels_equal_plain_attention_on_the_gpu(
    spans: list[tuple[int, int]], shape: tuple[int, int, int, int, int]
) -> None:
    check(spans, shape, torch.device("cuda"))


def test_few_long_rows_are_split_and_many_are_not() -> None:
    assert split_count(programs=4, capacity=2048) == 32
    assert split_count(programs=4, capacity=128) == 2
    assert split_count(programs=1024, capacity=2048) == 1

"""The Triton kernels of attention over pages against plain PyTorch.

On a GPU as they run; elsewhere by Triton's interpreter, where it is installed and asked for:
`TRITON_INTERPRET=1 pytest tests/kernels/test_paged_attention.py`.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from mengya.kernels.attention.paged import KernelAttention, split_count
from mengya.kernels.attention.paged_reference import PlainAttention

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = pytest.mark.skipif(
    DEVICE.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs a CUDA device, or TRITON_INTERPRET=1",
)
MIXED = [(0, 1), (99, 1), (64, 1), (0, 40), (33, 70)]  # (tokens before, new tokens)
ROWS = [(0, 1), (5, 1), (150, 1), (63, 1), (64, 1)]


@pytest.mark.parametrize("spans", [MIXED, ROWS], ids=["mixed", "rows"])
@pytest.mark.parametrize(
    ("kv_heads", "group", "key_width", "value_width", "page_size"),
    [(2, 2, 16, 16, 16), (1, 3, 24, 24, 4), (4, 1, 96, 96, 16), (1, 8, 40, 32, 8)],
)
def test_kernels_equal_plain_attention(
    spans: list[tuple[int, int]],
    kv_heads: int,
    group: int,
    key_width: int,
    value_width: int,
    page_size: int,
) -> None:
    """The last shape is that of latent attention: one key for all heads, whose beginning is the value."""
    draw = torch.Generator().manual_seed(0)
    kinds = 2 if key_width == value_width else 1
    starts, counts = np.array(spans).T
    width = int(-(-(starts + counts).max() // page_size)) + 3
    pages = len(spans) * width
    memory = torch.randn(pages, page_size, kinds, kv_heads, key_width, generator=draw).to(DEVICE)
    tables = torch.randperm(pages, generator=draw).view(len(spans), width).int().numpy()
    q = torch.randn(int(counts.sum()), kv_heads * group, key_width, generator=draw).to(DEVICE)
    rows = np.arange(len(spans)).repeat(counts)
    places = np.concatenate([np.arange(start, start + count) for start, count in spans])
    slots = tables[rows, places // page_size].astype(np.int64) * page_size + places % page_size
    new = memory.flatten(0, 1)[torch.from_numpy(slots).to(DEVICE)]
    plan = (page_size, value_width, tables, starts, counts, torch.float32, DEVICE)
    expected = PlainAttention(*plan).attend(memory, q, new, 0.2)
    torch.testing.assert_close(
        KernelAttention(*plan).attend(memory, q, new, 0.2), expected, atol=2e-5, rtol=1e-5
    )
    if spans is ROWS:
        table, place = (
            torch.from_numpy(tables).to(DEVICE),
            torch.from_numpy(starts).int().to(DEVICE),
        )
        planned = KernelAttention.of_rows(page_size, value_width, table, place)
        out = planned.attend(memory, q, new, 0.2)
        torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-5)


def test_few_long_rows_are_split_and_many_are_not() -> None:
    assert split_count(programs=4, capacity=2048) == 32
    assert split_count(programs=4, capacity=128) == 2
    assert split_count(programs=1024, capacity=2048) == 1

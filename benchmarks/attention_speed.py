"""Attention of packed documents on one GPU: our Triton kernels and FlashAttention 2 (torch's varlen).

For each shape (query heads/key heads x width, positions): relative error of the output and of every
gradient against SDPA in fp32; ms of kernels, forward alone and forward + backward; TFLOP/s of the pairs
that are visible (2 products forward, 5 backward: what is recomputed is not counted); our kernels.
Documents are of 64 to 1,024 tokens in rows of 1,024. `--tune` first tries CONFIGS for each kernel,
prints the fastest, and continues with those.

usage: python benchmarks/attention_speed.py [--tune] [--shapes 8/4x96:65536 16/8x48:16384 ...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pretraining_data import documents, packed
from timing import attempt, kernel_times, milliseconds
from torch import Tensor

from mengya.kernels.attention import document as ours
from mengya.kernels.attention.document import BLOCKS, Blocks, document_attention, visible_ranges
from mengya.kernels.attention.varlen import varlen_attention

ROW = 1024
COMPARED = 4 * ROW  # positions that SDPA in fp32 is given
SHAPES = ["8/4x96:65536", "16/8x48:16384", "8/2x64:65536", "16/8x128:16384"]
CONFIGS = [
    Blocks(64, 64, 4, 2, True), Blocks(64, 64, 4, 3, True), Blocks(64, 64, 4, 2, False),
    Blocks(128, 64, 4, 2, True), Blocks(128, 64, 4, 3, True), Blocks(128, 64, 8, 2, True),
    Blocks(128, 64, 8, 3, True), Blocks(128, 64, 8, 2, False), Blocks(128, 128, 8, 2, True),
    Blocks(64, 128, 4, 2, True), Blocks(64, 32, 4, 2, True), Blocks(64, 32, 4, 3, True),
    Blocks(64, 32, 4, 4, True), Blocks(64, 32, 4, 3, False), Blocks(128, 32, 8, 2, True),
    Blocks(128, 32, 8, 3, True), Blocks(128, 32, 4, 3, True), Blocks(32, 64, 4, 2, True),
]  # fmt: skip

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Case(NamedTuple):
    """One shape's inputs: q, k, v learn; `pairs` of positions see each other, in one head."""

    leaves: list[Tensor]
    dout: Tensor
    cu_seqlens: Tensor
    ranges: tuple[Tensor, Tensor]
    document_ids: Tensor
    pairs: int

    def attend_by(self, kernel: str) -> Attend:
        if kernel == "ours":
            first_visible, visible_end = self.ranges
            return lambda q, k, v: document_attention(q, k, v, first_visible, visible_end)
        return lambda q, k, v: varlen_attention(q, k, v, self.cu_seqlens, ROW)

    def gradients(self, attend: Attend) -> list[Tensor]:
        """[out, dq, dk, dv]"""
        out = attend(*self.leaves)
        return [out.detach(), *torch.autograd.grad(out, self.leaves, self.dout)]


def make(shape: str) -> Case:
    heads, rest = shape.split("/")
    kv_heads, rest = rest.split("x")
    width, T = (int(part) for part in rest.split(":"))
    rows = T // ROW
    batch = packed(documents(rows * 4, ROW, 6400), rows, ROW).to("cuda")
    torch.manual_seed(0)
    q, k, v, dout = (
        torch.randn(T, int(n), width, device="cuda", dtype=torch.bfloat16)
        for n in (heads, kv_heads, kv_heads, heads)
    )
    first_visible, visible_end = visible_ranges(batch.cu_seqlens, T, None)
    seen = torch.arange(T, device="cuda") - first_visible + 1
    leaves = [leaf.requires_grad_() for leaf in (q, k, v)]
    pairs = int(seen.sum())
    return Case(
        leaves, dout, batch.cu_seqlens, (first_visible, visible_end), batch.document_ids, pairs
    )


def exact(case: Case) -> list[Tensor]:
    """[out, dq, dk, dv] of the first positions, which are complete rows, by SDPA in fp32."""
    n = min(COMPARED, len(case.dout))
    row, number = torch.arange(n, device="cuda") // ROW, case.document_ids.flatten()[:n]
    mask = ((row[:, None] == row) & (number[:, None] == number)).tril()
    q, k, v = (leaf.detach()[:n].float().requires_grad_() for leaf in case.leaves)
    q_HSD, k_KSD, v_KSD = (x.transpose(0, 1) for x in (q, k, v))
    groups = q.shape[1] // k.shape[1]
    k_HSD, v_HSD = (x.repeat_interleave(groups, 0) for x in (k_KSD, v_KSD))
    out = F.scaled_dot_product_attention(q_HSD[None], k_HSD[None], v_HSD[None], mask)[0]
    out = out.transpose(0, 1)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), case.dout[:n].float())]


def compare(shape: str) -> None:
    case = make(shape)
    right = exact(case)
    H, D = case.dout.shape[1:]
    product = 2 * H * D * case.pairs  # FLOP of one product over the visible pairs
    for kernel in ("ours", "FlashAttention 2"):
        attend = case.attend_by(kernel)
        found = case.gradients(attend)
        errors = [
            ((a[: len(b)].float() - b).norm() / b.norm()).item()
            for a, b in zip(found, right, strict=True)
        ]
        print(f"  {kernel:17} error " + "  ".join(
            f"{name} {error:.5f}" for name, error in zip(("out", "dq", "dk", "dv"), errors, strict=True)
        ))  # fmt: skip
        if kernel == "ours":
            again = case.gradients(attend)
            same = all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
            print(f"  {'':17} same bits again: {same}")
        with torch.no_grad():
            forward = sum(ms for _, ms, _ in kernel_times(partial(attend, *case.leaves)))
        kernels = kernel_times(partial(case.gradients, attend))
        both = sum(ms for _, ms, _ in kernels)
        wall = milliseconds(partial(case.gradients, attend))
        print(
            f"  {kernel:17} forward {forward:.3f} ms ({2 * product / forward / 1e9:.0f} TFLOP/s), "
            f"forward + backward {both:.3f} ms ({7 * product / both / 1e9:.0f} TFLOP/s), "
            f"one call with its start {wall:.3f} ms"
        )
        for name, ms, calls in kernels[:8]:
            print(f"      {ms:7.3f} ms {calls:4.1f} x {name[:90]}", flush=True)


def tune(shape: str) -> None:
    """Time CONFIGS of each kernel alone on the shape's tensors; the fastest go into BLOCKS."""
    from mengya.kernels.attention import document_triton as document_kernels

    case, recorded, launch = make(shape), {}, ours.launch

    def record(name: str, *rest: Any) -> None:
        recorded[name] = rest
        launch(name, *rest)

    ours.launch = record
    try:
        case.gradients(case.attend_by("ours"))
    finally:
        ours.launch = launch
    T, D = len(case.dout), case.dout.shape[2]

    def call(name: str, blocks: Blocks, only_compile: bool = False) -> None:
        _, heads, _, group, *arguments = recorded[name]
        kernel, grid = getattr(document_kernels, name), (-(-T // blocks.rows), heads)
        how = ours.options(blocks, T, D, group)
        if only_compile:
            kernel.warmup(*arguments, grid=grid, **how)
        else:
            kernel[grid](*arguments, **how)

    began = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(call, name, blocks, True) for name in recorded for blocks in CONFIGS]
    failed = sum(job.exception() is not None for job in jobs)
    print(f"  {len(jobs)} compiled in {time.perf_counter() - began:.0f} s, {failed} failed")
    for name in recorded:
        times: list[tuple[float, Blocks]] = []
        for blocks in CONFIGS:
            ms = time_alone(partial(call, name, blocks))
            if ms is not None:
                times.append((ms, blocks))
        times.sort()
        for ms, blocks in times:
            print(f"      {ms:7.3f} ms {name} {tuple(blocks)}")
        BLOCKS[name] = {D: times[0][1], **{w: b for w, b in BLOCKS[name].items() if w > D}}
        print(f"  {name}: {D}: Blocks{tuple(times[0][1])}", flush=True)


def time_alone(start: Callable[[], None]) -> float | None:
    """ms of a kernel; None where it wants more shared memory or registers than there are."""

    def five() -> None:  # so that the time to start the first hardly counts
        for _ in range(5):
            start()

    try:
        return milliseconds(five, 5) / 5
    except Exception as error:
        print(f"      {type(error).__name__}: {str(error).splitlines()[0][:90]}")
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    torch.set_float32_matmul_precision("highest")
    print(torch.cuda.get_device_name(), torch.__version__)
    began = time.perf_counter()
    for shape in options.shapes:
        print(f"== {shape} ({time.perf_counter() - began:.0f} s)", flush=True)
        if options.tune:
            attempt(f"tuning {shape}", partial(tune, shape))
        attempt(shape, partial(compare, shape))


if __name__ == "__main__":
    main()

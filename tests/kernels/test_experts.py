"""The Triton kernels of the experts against plain PyTorch: outputs, all gradients, determinism.

With TRITON_INTERPRET=1 they run on a CPU, in fp32 and with small tiles; else on a GPU in bf16. The
one test that runs everywhere starts this file again in the interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mengya.kernels.experts import op
from mengya.kernels.experts.op import Tile
from mengya.kernels.experts.reference import grouped_experts
from mengya.models import moe
from mengya.models.moe import MoE
from tests.helpers.random_model import tiny_config

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPE = torch.float32 if INTERPRETED else torch.bfloat16


def test_kernels_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "12 passed" in done.stdout


@pytest.fixture(autouse=INTERPRETED)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small problem has several tiles and chunks, as a real one has."""
    for name in op.TILES:
        monkeypatch.setitem(op.TILES, name, Tile(32, 32, 16, 4, 2))


def spread(N: int, k: int, E: int) -> Tensor:
    """Experts at random, but none to the second one."""
    chosen = torch.rand(N, E).index_fill(1, torch.tensor([1]), -1).topk(k).indices
    return chosen.to(DEVICE)


def one_takes_all(N: int, k: int, E: int) -> Tensor:
    return torch.tensor([[E - 1, 0]]).expand(N, 2)[:, :k].to(DEVICE)


def inputs(N: int, k: int, E: int, H: int, I: int) -> list[Tensor]:
    """x, weights, gate_up, down, the gradient of the output; values that bf16 holds exactly."""
    torch.manual_seed(0)
    shapes = [(N, H), (N, k), (E, 2 * I, H), (E, H, I), (N, H)]
    scales = [1, 1, H**-0.5, I**-0.5, 1]
    made = [torch.randn(shape) * scale for shape, scale in zip(shapes, scales, strict=True)]
    return [tensor.bfloat16().float() for tensor in made]


def run(
    compute: Callable[..., Tensor], values: list[Tensor], experts: Tensor, dtype: torch.dtype
) -> list[Tensor]:
    """The output and the gradients of x, weights, gate_up and down, in fp32."""
    x, weights, gate_up, down, dout = (value.to(DEVICE) for value in values)
    x, gate_up, down = (value.to(dtype) for value in (x, gate_up, down))
    leaves = [value.clone().requires_grad_() for value in (x, weights, gate_up, down)]
    out = compute(leaves[0], leaves[1], experts, *leaves[2:])
    out.backward(dout.to(dtype))
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert len(gradients) == 4
    return [tensor.detach().float() for tensor in (out, *gradients)]


@pytest.mark.gpu
@pytest.mark.parametrize("choose", [spread, one_takes_all])
@pytest.mark.parametrize(
    "N, k, E, H, I",
    [(100, 1, 4, 64, 48), (70, 2, 5, 48, 80), (1, 2, 3, 16, 16), (20, 8, 10, 32, 16)],
)
def test_outputs_and_gradients(
    choose: Callable[[int, int, int], Tensor], N: int, k: int, E: int, H: int, I: int
) -> None:
    if choose is one_takes_all and k > 2:
        pytest.skip("one expert cannot be a token's only one and its eighth")
    values, experts = inputs(N, k, E, H, I), choose(N, k, E)
    expected = run(grouped_experts, values, experts, torch.float32)
    results = run(op.fused_experts, values, experts, DTYPE)
    again = run(op.fused_experts, values, experts, DTYPE)
    for ours, same, exact in zip(results, again, expected, strict=True):
        error = (ours - exact).norm() / exact.norm()
        assert error < (1e-5 if INTERPRETED else 1e-2)
        assert torch.equal(ours, same)


@pytest.mark.gpu
@pytest.mark.parametrize("E", [1, 2, 7, 64])
def test_rows_are_sorted_and_cut(E: int) -> None:
    torch.manual_seed(0)
    experts_Nk = torch.randint(E, (700, 3), device=DEVICE)
    order_M, ends_E = op.sort_rows(experts_Nk, E)
    flat = experts_Nk.flatten()
    assert torch.equal(order_M.long(), flat.argsort(stable=True))
    assert torch.equal(ends_E.long(), torch.bincount(flat, minlength=E).cumsum(0))
    pieces = [piece for piece in op.cut(ends_E, 2100, 64).tolist() if piece[0] >= 0]
    starts = [0, *ends_E.tolist()]
    expected = [
        [e, first, min(first + 64, starts[e + 1])]
        for e in range(E)
        for first in range(starts[e], starts[e + 1], 64)
    ]
    assert pieces == expected


@pytest.mark.gpu
def test_a_layer_compiles_into_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moe.op, "is_supported", lambda *_: True)
    torch.manual_seed(0)
    config = tiny_config("Glm4Moe", moe_intermediate_size=32, hidden_size=48)
    layer = MoE(config).to(DEVICE, DTYPE).train()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, 24, 48, device=DEVICE, dtype=DTYPE)

    def gradients(call: Callable[..., tuple[Tensor, object]]) -> list[Tensor]:
        layer.zero_grad()
        out = call(x, None)[0]
        (out * torch.linspace(-1, 1, 48, device=DEVICE)).sum().backward()
        return [out, *(p.grad for p in layer.parameters() if p.grad is not None)]

    plain = gradients(layer)
    torch._dynamo.reset()
    compiled = gradients(torch.compile(layer, fullgraph=True, backend="aot_eager"))
    assert len(plain) == len(compiled) == 7
    for expected, actual in zip(plain, compiled, strict=True):
        torch.testing.assert_close(actual, expected)

"""The experts' sum: grouped products against looped ones and against one token at a time; what is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels import experts
from mengya.kernels.experts import grouped_experts, grouped_product, looped_product
from mengya.models.moe import MoE
from tests.helpers.random_model import tiny_config

SIZES = [(100, 1, 4, 64, 48), (70, 2, 5, 48, 80), (1, 2, 3, 16, 16), (20, 8, 10, 32, 16)]
Experts = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def by_token(x: Tensor, weights: Tensor, chosen: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """The definition: each token alone, one expert after another."""
    rows = []
    for n in range(len(x)):
        row = torch.zeros_like(x[n])
        for weight, e in zip(weights[n], chosen[n], strict=True):
            gate, up = F.linear(x[n], gate_up[e]).chunk(2)
            row = row + weight * F.linear(F.silu(gate) * up, down[e])
        rows.append(row)
    return torch.stack(rows)


def spread(N: int, k: int, E: int) -> Tensor:
    """Experts at random, but none to the second one."""
    return torch.rand(N, E).index_fill(1, torch.tensor([1]), -1).topk(k).indices


def inputs(N: int, k: int, E: int, H: int, I: int) -> list[Tensor]:
    """x, weights, gate_up, down, the gradient of the output."""
    torch.manual_seed(0)
    shapes = [(N, H), (N, k), (E, 2 * I, H), (E, H, I), (N, H)]
    scales = [1, 1, H**-0.5, I**-0.5, 1]
    return [torch.randn(shape) * scale for shape, scale in zip(shapes, scales, strict=True)]


def run(compute: Experts, values: list[Tensor], chosen: Tensor) -> list[Tensor]:
    """The output and the gradients of x, weights, gate_up and down."""
    leaves = [value.clone().requires_grad_() for value in values[:4]]
    out = compute(leaves[0], leaves[1], chosen, *leaves[2:])
    out.backward(values[4])
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert len(gradients) == 4
    return [out.detach(), *gradients]


def use_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA takes in bf16; a CPU has it in fp32 as well, but not the compiler."""
    monkeypatch.setattr(experts, "_can_use_grouped_mm", lambda *_: True)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("N, k, E, H, I", SIZES)
def test_outputs_and_gradients_are_those_of_one_token_at_a_time(
    N: int, k: int, E: int, H: int, I: int, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if grouped:
        use_grouped(monkeypatch)
    values, chosen = inputs(N, k, E, H, I), spread(N, k, E)
    expected = run(by_token, values, chosen)
    results = run(grouped_experts, values, chosen)
    for ours, exact in zip(results, expected, strict=True):
        assert (ours - exact).norm() < 1e-5 * exact.norm()


def test_one_expert_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    values, chosen = inputs(70, 2, 5, 48, 80), torch.tensor([[4, 0]]).expand(70, 2)
    expected = run(by_token, values, chosen)
    looped = run(grouped_experts, values, chosen)
    use_grouped(monkeypatch)
    grouped = run(grouped_experts, values, chosen)
    for exact, a, b in zip(expected, looped, grouped, strict=True):
        torch.testing.assert_close(a, exact, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(b, exact, atol=1e-5, rtol=1e-4)


def test_grouped_and_looped_products_are_equal() -> None:
    ends = torch.tensor([3, 3, 10, 12], dtype=torch.int32)  # the second expert gets nothing
    x, weight = torch.randn(12, 16), torch.randn(4, 8, 16)
    results = []
    for multiply in (grouped_product, looped_product):
        a, w = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = multiply(a, w, ends)
        (out * torch.arange(8.0)).sum().backward()
        assert a.grad is not None and w.grad is not None
        results.append((out, a.grad, w.grad))
    for grouped, looped in zip(*results, strict=True):
        torch.testing.assert_close(grouped, looped, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_backward_keeps_sorted_input_gate_and_up(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what has a row for each choice; not silu(gate) * up, nor what the experts give."""
    use_grouped(monkeypatch)
    N, k, E, H, I = 1000, 2, 4, 32, 80
    values, chosen = inputs(N, k, E, H, I), spread(N, k, E)
    x, weights, gate_up, down = (v.bfloat16().requires_grad_() for v in values[:4])
    torch._dynamo.reset()
    backend = "aot_eager_decomp_partition"  # the compiler's choice of what to keep, not its kernels
    compute: Experts = grouped_experts
    if compiled:
        compute = torch.compile(grouped_experts, fullgraph=True, backend=backend)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes() // tensor.itemsize
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute(x, weights, chosen, gate_up, down).sum().backward()
    M, own = N * k, {t.untyped_storage().data_ptr() for t in (x, weights, gate_up, down)}
    large = [size for place, size in kept.items() if place not in own and size > 2 * M]
    assert sorted(large) == [M * H, M * 2 * I]


def test_a_layer_compiles_into_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    use_grouped(monkeypatch)
    torch.manual_seed(0)
    layer = MoE(tiny_config("Glm4Moe", moe_intermediate_size=32, hidden_size=48)).bfloat16().train()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, 24, 48).bfloat16()

    def gradients(call: Callable[..., tuple[Tensor, object]]) -> list[Tensor]:
        layer.zero_grad()
        out = call(x, None)[0]
        (out * torch.linspace(-1, 1, 48)).sum().backward()
        return [out, *(p.grad for p in layer.parameters() if p.grad is not None)]

    plain = gradients(layer)
    torch._dynamo.reset()
    compiled = gradients(torch.compile(layer, fullgraph=True, backend="aot_eager"))
    assert len(plain) == len(compiled) == 7
    for expected, actual in zip(plain, compiled, strict=True):
        torch.testing.assert_close(actual, expected)

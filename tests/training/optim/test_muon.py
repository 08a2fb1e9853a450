"""Muon and NorMuon against exact factors and torch's own, on stacks, and in two real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.training.optim.build import build_optimizers
from mengya.training.optim.config import MuonConfig, OptimizerConfig
from mengya.training.optim.muon import Muon
from mengya.training.optim.orthogonalize import orthogonalize

SHAPES = [(16, 32), (16, 32), (32, 8), (16, 32), (8, 8)]


def exact(x: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    return u @ vh


def gradients(seed: int, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Matrices with a spectrum that falls as that of a gradient, their rows of unequal size."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for shape in shapes:
        x = torch.randn(*shape, generator=generator)
        u, s, vh = torch.linalg.svd(x, full_matrices=False)
        falling = s * torch.arange(1, s.shape[-1] + 1) ** -0.5
        rows = torch.linspace(0.2, 2.0, shape[-2])[:, None]
        drawn.append(rows * (u @ torch.diag_embed(falling) @ vh))
    return drawn


def run(
    optimizer: Optimizer,
    parameters: list[nn.Parameter],
    steps: int,
    place: Callable[[Tensor], Tensor] = lambda gradient: gradient,
) -> None:
    shapes = [tuple(p.shape) for p in parameters]
    for step in range(steps):
        for p, g in zip(parameters, gradients(step, shapes), strict=True):
            p.grad = place(g)
        optimizer.step()


def start(shapes: Sequence[tuple[int, ...]]) -> list[nn.Parameter]:
    return [nn.Parameter(g) for g in gradients(99, shapes)]


@pytest.mark.parametrize("shape", [(3, 16, 48), (2, 48, 16), (1, 12, 40)])
def test_orthogonalize_comes_near_the_exact_factor(shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    distance = (orthogonalize(x) - exact(x)).flatten(1).norm(dim=1) / exact(x).flatten(1).norm(
        dim=1
    )
    assert distance.max() < 0.15
    assert not orthogonalize(torch.zeros(shape)).any()


@pytest.mark.parametrize("beta2", [None, 0.9])
def test_follows_the_formulas_with_exact_factors(beta2: float | None) -> None:
    ours, theirs = start(SHAPES), start(SHAPES)
    run(Muon(ours, lr=0.02, momentum=0.9, beta2=beta2, weight_decay=0.1), ours, steps=6)
    for number, p in enumerate(theirs):
        w, m, v = p.detach(), torch.zeros(p.shape), torch.zeros(len(p), 1)
        for step in range(6):
            g = gradients(step, SHAPES)[number]
            m = 0.9 * m + 0.1 * g
            u = exact(0.9 * m + 0.1 * g)
            if beta2 is None:
                u = 0.2 * max(p.shape) ** 0.5 * u
            else:
                v = beta2 * v + (1 - beta2) * (u * u).mean(1, keepdim=True)
                u = u / v.sqrt()
                u = 0.2 * u / (u * u).mean().sqrt()
            w = w - 0.02 * 0.1 * w - 0.02 * u
        moved = w - p.detach()
        assert (ours[number] - w).norm() < 0.12 * moved.norm()


def test_follows_torch_optim_muon() -> None:
    """torch's iteration is a coarser one in bf16: the two agree in direction and in size."""
    ours, theirs = start(SHAPES), start(SHAPES)
    run(Muon(ours, lr=0.02, weight_decay=0.1), ours, steps=5)
    other = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    run(other, theirs, steps=5)
    for a, b, before in zip(ours, theirs, start(SHAPES), strict=True):
        cosine = nn.functional.cosine_similarity((a - before).flatten(), (b - before).flatten(), 0)
        assert cosine > 0.97
        assert (a - before).norm().item() == pytest.approx((b - before).norm().item(), rel=0.15)


def test_normuon_moves_every_neuron_alike() -> None:
    spread = {}
    for beta2 in (None, 0.95):
        (p,) = start([(64, 16)])
        before = p.detach().clone()
        run(Muon([p], lr=0.02, beta2=beta2), [p], steps=1)
        rows = (p.detach() - before).square().mean(1).sqrt()
        spread[beta2] = (rows.std() / rows.mean()).item()
        moved = (p.detach() - before).square().mean().sqrt().item()
        assert moved == pytest.approx(0.02 * 0.2, rel=0.1)
    assert spread[0.95] < 0.01 < spread[None]


@pytest.mark.parametrize("beta2", [None, 0.95])
@pytest.mark.parametrize("width", [24, 8])
def test_a_stack_of_pairs_is_trained_as_its_single_matrices(
    beta2: float | None, width: int
) -> None:
    stack = start([(3, 2 * 16, width)])
    single = [nn.Parameter(m.clone()) for m in stack[0].detach().reshape(6, 16, width)]
    stacked = Muon([{"params": stack, "parts": 2}], lr=0.02, beta2=beta2, weight_decay=0.1)
    alone = Muon(single, lr=0.02, beta2=beta2, weight_decay=0.1)
    for step in range(3):
        (g,) = gradients(step, [(3, 32, width)])
        stack[0].grad = g
        for p, part in zip(single, g.reshape(6, 16, width), strict=True):
            p.grad = part.clone()
        stacked.step()
        alone.step()
    torch.testing.assert_close(stack[0].reshape(6, 16, width), torch.stack(list(single)))


def test_layers_matrices_and_experts_go_to_muon_and_nothing_else() -> None:
    model = CausalLM(
        ModelConfig(
            vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, num_experts=3, num_experts_per_tok=1, moe_intermediate_size=8,
            first_k_dense_replace=1, n_shared_experts=1, scoring_func="sigmoid",
        )
    )  # fmt: skip
    config = OptimizerConfig(name="normuon", lr=3e-3, muon=MuonConfig(weight_decay=0.3))
    _, muon = build_optimizers(model, config)
    names = {p: n for n, p in model.named_parameters()}
    single, pairs = ([names[p] for p in group["params"]] for group in muon.param_groups)
    assert pairs == ["model.layers.1.mlp.experts.gate_up_proj"]
    assert "model.layers.1.mlp.experts.down_proj" in single and len(single) == 4 + 3 + 4 + 3 + 1
    assert {(g["lr"], g["weight_decay"], g["parts"]) for g in muon.param_groups} == {
        (3e-3, 0.3, 1), (3e-3, 0.3, 2)
    }  # fmt: skip


STACKED = [*SHAPES, (3, 16, 8), (4, 16, 8)]

RANK_PROGRAM = """
import sys
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from mengya.training.distributed.process_group import leave_process_group
from mengya.training.optim.muon import Muon
from tests.training.optim.test_muon import STACKED, run, start

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))

def shard(t):
    axis = 1 if t.ndim == 3 and len(t) % 2 else 0
    return distribute_tensor(t, mesh, [Shard(axis)])

def full(t):
    return (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone()

for layout, place in {"replicated": lambda t: t, "sharded": shard}.items():
    parameters = [nn.Parameter(place(p.detach())) for p in start(STACKED)]
    optimizer = Muon(parameters, lr=0.02, beta2=0.95, weight_decay=0.1, dp_group=dist.group.WORLD)
    run(optimizer, parameters, steps=4, place=place)
    tensors = {f"{i}.weight": full(p) for i, p in enumerate(parameters)}
    for i, p in enumerate(parameters):
        tensors |= {f"{i}.{k}": full(v) for k, v in optimizer.state[p].items()}
    save_file(tensors, f"{sys.argv[1]}/{layout}{dist.get_rank()}.safetensors")
leave_process_group()
"""


def test_two_processes_share_the_work_and_end_with_the_same_state(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(RANK_PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    root = Path(__file__).parents[3]
    environment = {"PYTHONPATH": f"{root}:{root / 'src'}", "OMP_NUM_THREADS": "1"}
    command = [*torchrun, str(tmp_path / "program.py"), str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, **environment}, cwd=root)
    alone = start(STACKED)
    optimizer = Muon(alone, lr=0.02, beta2=0.95, weight_decay=0.1)
    run(optimizer, alone, steps=4)
    for layout in ("replicated", "sharded"):
        first, second = (load_file(tmp_path / f"{layout}{rank}.safetensors") for rank in range(2))
        assert all(torch.equal(value, second[key]) for key, value in first.items())
        for number, p in enumerate(alone):
            for key, value in {"weight": p.detach(), **optimizer.state[p]}.items():
                torch.testing.assert_close(first[f"{number}.{key}"], value, rtol=0, atol=1e-6)

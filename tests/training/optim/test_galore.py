"""GaLore through the library: what it saves of memory, and that a run resumes from its state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytorch_optimizer import GaLore
from torch import nn
from torch.optim import Optimizer

from mengya.errors import UserError
from mengya.training.checkpoint.tensor_files import Part, write_part
from mengya.training.optim.build import build_optimizers, load_optimizer_state, optimizer_state
from mengya.training.optim.config import GaLoreConfig, OptimizerConfig

RANK = 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = nn.ModuleList([nn.Linear(24, 16), nn.Linear(16, 32)])
        self.model = nn.ModuleDict({"layers": layers})

    @property
    def linears(self) -> list[nn.Linear]:
        return [m for m in self.modules() if isinstance(m, nn.Linear)]


def build(model: nn.Module) -> list[Optimizer]:
    galore = GaLoreConfig(rank=RANK, update_every=3, scale=0.5)
    return build_optimizers(model, OptimizerConfig(name="galore", lr=1e-2, galore=galore))


def train(model: nn.Module, optimizers: list[Optimizer], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()


def test_moments_are_of_the_subspace_and_all_state_is_tensors() -> None:
    model = Net()
    optimizers = build(model)
    train(model, optimizers, range(4))
    state = optimizer_state(optimizers, model)
    shapes = {n.removeprefix("model.layers."): tuple(t.shape) for n, t in state.items()}
    assert shapes["0.weight.exp_avg"] == (RANK, 24) and shapes["0.weight.subspace"] == (16, RANK)
    assert shapes["1.weight.exp_avg_sq"] == (32, RANK) and shapes["0.bias.exp_avg"] == (16,)


def test_computes_what_the_library_does_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    straight, resumed, theirs = Net(), Net(), Net()
    train(straight, build(straight), range(8))
    before = build(resumed)
    train(resumed, before, range(5))
    after = build(resumed)
    state = {n: t.contiguous() for n, t in optimizer_state(before, resumed).items()}
    write_part(tmp_path, "optimizer", Part(state))
    load_optimizer_state(after, resumed, tmp_path)
    train(resumed, after, range(5, 8))

    matrices = {"params": [layer.weight for layer in theirs.linears], "rank": RANK}
    matrices |= {"update_proj_gap": 3, "scale": 0.5, "projection_type": "std"}
    library = GaLore([matrices], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    train(theirs, [library], range(8))
    for layer, (a, b, c) in enumerate(
        zip(straight.linears, resumed.linears, theirs.linears, strict=True)
    ):
        assert torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias), layer
        # Only the layout of the subspace differs, and with it the order of sums.
        torch.testing.assert_close(a.weight, c.weight, rtol=1e-5, atol=1e-6)


def test_adapters_are_refused() -> None:
    model = nn.ModuleDict({"lora_A": nn.Linear(4, 4)})
    with pytest.raises(UserError, match=r"optimizer\.name=galore .* with LoRA use adamw"):
        build(model)

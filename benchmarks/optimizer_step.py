"""How near Muon's orthogonalization comes, and how long a step of each optimizer takes.

The first table needs no GPU: distance from the exact factor U V^T, |X - UV^T| / |UV^T|, after five
steps of the fixed quintic that Muon began with (Jordan et al. 2024) and of Polar Express, on matrices
of four spectra. The second is the time of `optimizer.step` alone, with the orthogonalization eager (as
it ships) and through torch.compile.

usage: python benchmarks/optimizer_step.py [--shape 26m] [--steps 20] [--cpu]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from shapes import SHAPES
from torch import Tensor

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.runtime.device import init_device
from mengya.training.optim import muon
from mengya.training.optim.build import build_optimizers
from mengya.training.optim.config import OptimizerConfig
from mengya.training.optim.orthogonalize import orthogonalize

ROWS, COLUMNS = 256, 704


def quintic(x: Tensor) -> Tensor:
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


def spectra() -> dict[str, Tensor]:
    """Singular values, largest first; None stands for a matrix of independent normal numbers."""
    k = torch.arange(1, ROWS + 1.0)
    normal = torch.linalg.svdvals(torch.randn(ROWS, COLUMNS))
    return {
        "normal": normal,
        "k^-0.5": k**-0.5,
        "1/k": 1 / k,
        "1 to 0.001": torch.logspace(0, -3, ROWS),
    }


def print_distances() -> None:
    torch.manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(ROWS, ROWS))
    v, _ = torch.linalg.qr(torch.randn(COLUMNS, ROWS))
    print(f"{ROWS} x {COLUMNS}, fp32\n{'spectrum':12} {'quintic':>8} {'Polar Express':>14}")
    for name, values in spectra().items():
        x, exact = u @ values.diag() @ v.mT, u @ v.mT
        found = quintic(x), orthogonalize(x[None])[0]
        a, b = (((y - exact).norm() / exact.norm()).item() for y in found)
        print(f"{name:12} {a:8.3f} {b:14.3f}")


def print_times(shape: str, steps: int, device: torch.device) -> None:
    config = ModelConfig(vocab_size=6400, **SHAPES[shape])
    torch.manual_seed(0)
    model = CausalLM(config).to(device)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    print(f"\n{shape} on {device}, torch {torch.__version__}: median of {steps} steps")
    compiled = torch.compile(orthogonalize, fullgraph=True, dynamic=False)
    for title, name, function in (
        ("adamw", "adamw", orthogonalize),
        ("muon", "muon", orthogonalize),
        ("normuon", "normuon", orthogonalize),
        ("normuon, compiled", "normuon", compiled),
    ):
        if function is compiled and device.type != "cuda":
            continue
        muon.orthogonalize = function
        optimizers = build_optimizers(model, OptimizerConfig(name=name))  # type: ignore[arg-type]
        seconds = []
        for _ in range(steps + 3):
            started = time.perf_counter()
            for optimizer in optimizers:
                optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        print(f"{title:18} {1e3 * statistics.median(seconds[3:]):8.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="26m")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    print_distances()
    print_times(options.shape, options.steps, init_device("cpu" if options.cpu else "auto"))


if __name__ == "__main__":
    main()

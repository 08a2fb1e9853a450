"""The mixture of experts on one GPU: correct, and how fast a layer, its router and a model are.

Parts (all by default, each case on its own: one that fails prints its traceback and the rest runs):
check    outputs and gradients of the experts in bf16 against fp32, eager and compiled
layers   forward + backward of a layer, 65,536 tokens, compiled: a dense MLP of equal FLOPs, ours,
         transformers' block (bf16 weights, grouped_mm); the kernels of ours
router   a router's linear layer in bf16, in fp32 and split into bf16 parts; the complete router
model    a training step of 198M-A64M and of the dense 64M, compiled, packed rows, real tokens

usage: python benchmarks/moe_speed.py [--parts check layers router model] [--tokens 65536]
       --cpu: check and layers of few tokens, only to see that they run
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from our_step import ours, real_tokens
from pretraining_data import documents, packed
from shapes import SHAPES
from timing import Clock, attempt, kernel_times, milliseconds, time_steps
from torch import Tensor, nn

from mengya.kernels.experts import grouped_experts
from mengya.kernels.linear import fp32_linear, split_linear
from mengya.models import router
from mengya.models.config.model import ModelConfig
from mengya.models.moe import MoE
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution

LAYERS: dict[str, dict[str, Any]] = {
    "4 x 2432 top-1": {
        "hidden_size": 768, "num_experts": 4, "num_experts_per_tok": 1,
        "moe_intermediate_size": 2432, "norm_topk_prob": False,
    },
    "12 x 256 top-2 + 512": {
        "hidden_size": 1536, "num_experts": 12, "num_experts_per_tok": 2,
        "moe_intermediate_size": 256, "n_shared_experts": 2, "scoring_func": "sigmoid",
    },
}  # fmt: skip


class Dense(nn.Module):
    """The bound: one SwiGLU of the width that a token meets, gate and up in one product."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(hidden, 2 * width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


def config_of(name: str) -> ModelConfig:
    return ModelConfig(
        vocab_size=6400, intermediate_size=2432, num_hidden_layers=1, num_attention_heads=8,
        num_key_value_heads=4, **LAYERS[name],
    )  # fmt: skip


def expert_inputs(
    name: str, tokens: int, dtype: torch.dtype, device: torch.device
) -> tuple[list[Tensor], Tensor, Tensor]:
    """([x, weights, gate_up, down], chosen experts, gradient of the output); uneven load."""
    config = config_of(name)
    E, H, I = config.num_experts, config.hidden_size, config.expert_width
    torch.manual_seed(0)
    x = torch.randn(tokens, H, device=device)
    scores = torch.randn(tokens, E, device=device) + torch.linspace(0, 0.5, E, device=device)
    weights, chosen = scores.softmax(-1).topk(config.num_experts_per_tok)
    gate_up = torch.randn(E, 2 * I, H, device=device) / H**0.5
    down = torch.randn(E, H, I, device=device) / I**0.5
    dout = torch.randn(tokens, H, device=device).to(torch.bfloat16)
    rounded = [t.to(torch.bfloat16).to(dtype) for t in (x, gate_up, down)]
    leaves = [rounded[0], weights, *rounded[1:]]
    return [leaf.requires_grad_() for leaf in leaves], chosen, dout.to(dtype)


def check(name: str, tokens: int, device: torch.device) -> None:
    paths = {
        "fp32": (grouped_experts, torch.float32),
        "bf16": (grouped_experts, torch.bfloat16),
        "compiled": (torch.compile(grouped_experts), torch.bfloat16),
        "again": (torch.compile(grouped_experts), torch.bfloat16),
    }
    results: dict[str, list[Tensor]] = {}
    for path, (compute, dtype) in paths.items():
        leaves, chosen, dout = expert_inputs(name, tokens, dtype, device)
        x, weights, gate_up, down = leaves
        out = compute(x, weights, chosen, gate_up, down)
        out.backward(dout)
        gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
        results[path] = [out.detach(), *gradients]
    print(f"{name}: relative error against fp32")
    for number, part in enumerate(("out", "d x", "d weights", "d gate_up", "d down")):
        exact, eager, compiled, again = (results[path][number].float() for path in paths)
        errors = [((value - exact).norm() / exact.norm()).item() for value in (eager, compiled)]
        same = torch.equal(compiled, again)
        print(f"  {part:10} eager {errors[0]:.5f}  compiled {errors[1]:.5f}  same again: {same}")


def transformers_block(config: ModelConfig, device: torch.device) -> nn.Module:
    from transformers import Glm4MoeConfig, Qwen3MoeConfig
    from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeMoE
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    common = {
        "hidden_size": config.hidden_size, "moe_intermediate_size": config.expert_width,
        "num_experts_per_tok": config.num_experts_per_tok, "norm_topk_prob": config.norm_topk_prob,
    }  # fmt: skip
    stock: Any
    if config.scoring_func == "softmax":
        stock, kind = (
            Qwen3MoeConfig(num_experts=config.num_experts, **common),
            Qwen3MoeSparseMoeBlock,
        )
    else:
        stock, kind = Glm4MoeConfig(
            n_routed_experts=config.num_experts, n_shared_experts=config.n_shared_experts,
            n_group=1, topk_group=1, **common,
        ), Glm4MoeMoE  # fmt: skip
    stock._experts_implementation = "grouped_mm"
    block: nn.Module = kind(stock)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.02)
    return block.to(device).bfloat16().train()


Linear = Callable[[Tensor, Tensor], Tensor]


def unsplit_fp32_linear(x: Tensor, weight: Tensor) -> Tensor:
    """What `fp32_linear` does where it cannot split: an fp32 copy of x."""
    with torch.autocast("cuda", enabled=False):
        return F.linear(x.float(), weight.float())


def time_router(name: str, tokens: int) -> None:
    config = config_of(name)
    torch._dynamo.reset()
    router.fp32_linear = fp32_linear
    gate = MoE(config).cuda().gate
    nn.init.normal_(gate.weight, std=0.02)
    x = torch.randn(tokens, config.hidden_size, device="cuda", dtype=torch.bfloat16)
    x.requires_grad_()
    dlogits = torch.randn(tokens, config.num_experts, device="cuda")
    exact = unsplit_fp32_linear(x, gate.weight)
    linears: dict[str, Linear] = {
        "bf16": lambda x, w: F.linear(x, w.bfloat16()).float(),
        "fp32": unsplit_fp32_linear,
        "split": split_linear,
    }
    for case, linear in linears.items():
        compiled = torch.compile(linear, fullgraph=True)

        def work(compiled: Linear = compiled) -> None:
            compiled(x, gate.weight).backward(dlogits)
            x.grad = gate.weight.grad = None

        def run(case: str = case, compiled: Linear = compiled, work: Callable[[], None] = work) -> None:  # fmt: skip
            error = ((compiled(x, gate.weight) - exact).norm() / exact.norm()).item()
            print(f"  {name} | linear, {case}: {milliseconds(work):.3f} ms, error {error:.1e}")

        attempt(case, run)
    compiled_gate = torch.compile(gate, fullgraph=True)

    def route() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            compiled_gate(x).weights_Nk.square().sum().backward()
        x.grad = gate.weight.grad = None

    print(f"  {name} | router: {milliseconds(route):.3f} ms")
    for kernel, ms, calls in kernel_times(route)[:12]:
        print(f"      {ms:7.3f} ms {calls:4.1f} x {kernel[:90]}")


def layer_cases(name: str, device: torch.device) -> dict[str, Callable[[], tuple[nn.Module, bool]]]:
    """name -> (module, whether it runs under autocast)"""
    config = config_of(name)
    met = (config.num_experts_per_tok + config.n_shared_experts) * config.expert_width

    def mixture(linear: Linear) -> tuple[nn.Module, bool]:
        router.fp32_linear = linear
        layer = MoE(config).to(device).train()
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.02)
        return layer, True

    cases: dict[str, Callable[[], tuple[nn.Module, bool]]] = {
        "dense of equal FLOPs": lambda: (Dense(config.hidden_size, met).to(device), True),
        "ours": lambda: mixture(fp32_linear),
        "ours, fp32 router": lambda: mixture(unsplit_fp32_linear),
        "transformers grouped_mm": lambda: (transformers_block(config, device), False),
    }
    if config.scoring_func == "softmax":
        del cases["ours, fp32 router"]  # it has none
    return cases


def time_layer(
    name: str, case: str, make: Callable[[], tuple[nn.Module, bool]], tokens: int,
    device: torch.device,
) -> tuple[float, float]:  # fmt: skip
    torch._dynamo.reset()
    module, autocast = make()
    cuda = device.type == "cuda"
    if cuda:
        module.compile(fullgraph=case.startswith("ours"))
    hidden = config_of(name).hidden_size
    x = torch.randn(tokens // 64, 64, hidden, device=device, dtype=torch.bfloat16)
    x.requires_grad_()
    real = torch.ones(x.shape[:2], dtype=torch.bool, device=device)
    dout = torch.randn_like(x)

    def work() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            out = module(x, real)[0] if isinstance(module, MoE) else module(x)
        out.backward(dout)
        for parameter in module.parameters():
            parameter.grad = None
        x.grad = None

    work()
    if not cuda:
        started = time.perf_counter()
        work()
        return (time.perf_counter() - started) * 1e3, float("nan")
    torch.cuda.reset_peak_memory_stats()
    spent = milliseconds(work)
    peak = torch.cuda.max_memory_allocated() / 2**30
    print(f"  {name} | {case}: {spent:.2f} ms, peak {peak:.2f} GiB", flush=True)
    if case.startswith("ours"):
        for kernel, ms, calls in kernel_times(work)[:24]:
            print(f"      {ms:7.3f} ms {calls:4.1f} x {kernel[:90]}")
    return spent, peak


def time_model(dense: bool, rows: int, size: int) -> tuple[float, float]:
    torch._dynamo.reset()
    router.fp32_linear = fp32_linear
    shape = SHAPES["64m" if dense else "198m-moe"]
    config = ModelConfig(vocab_size=6400, max_position_embeddings=size, **shape)
    batch = packed(documents(rows * 4, size, config.vocab_size), rows, size)
    strategy = SingleDevice(Execution(torch.device("cuda"), torch.bfloat16))
    step = ours(config, strategy)
    timing = time_steps(step, itertools.repeat(batch), real_tokens, Clock(strategy.device, 3, 5, 3))
    speed, peak = timing.speed, timing.peak
    print(f"  {'64M dense' if dense else '198M-A64M'}: {speed:,.0f} tokens/s, peak {peak:.1f} GiB")
    for kernel, ms, calls in kernel_times(lambda: step(batch), 2)[:30]:
        print(f"      {ms:7.3f} ms {calls:5.1f} x {kernel[:90]}")
    return speed, peak


def main() -> None:
    parts = ("check", "layers", "router", "model")
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", nargs="+", choices=parts)
    parser.add_argument("--tokens", type=int, help="of a layer: 65,536; 128 on a CPU")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--cpu", action="store_true", help="only to see that it runs")
    options = parser.parse_args()
    device = torch.device("cpu" if options.cpu else "cuda")
    tokens = options.tokens or (128 if options.cpu else 65_536)
    where = "cpu" if options.cpu else torch.cuda.get_device_name()
    print(f"{where}, torch {torch.__version__}")
    started = time.perf_counter()
    layers: dict[tuple[str, str], tuple[float, float]] = {}
    models: dict[str, tuple[float, float]] = {}
    for part in options.parts or (parts[:2] if options.cpu else parts):
        print(f"== {part} (after {time.perf_counter() - started:.0f} s)", flush=True)
        for name in LAYERS if part != "model" else ():
            if part == "check":
                attempt(name, partial(check, name, tokens // 8 + 37, device))
            if part == "layers":
                for case, make in layer_cases(name, device).items():
                    work = partial(time_layer, name, case, make, tokens, device)
                    if (result := attempt(f"{name}, {case}", work)) is not None:
                        layers[name, case] = result
            if part == "router":
                attempt(name, partial(time_router, name, tokens))
        for dense in (False, True) if part == "model" else ():
            work = partial(time_model, dense, options.rows, options.size)
            if (result := attempt(f"model, dense={dense}", work)) is not None:
                models["64M dense" if dense else "198M-A64M"] = result
    print(f"== results (after {time.perf_counter() - started:.0f} s)")
    for (name, case), (ms, peak) in layers.items():
        bound = layers.get((name, "dense of equal FLOPs"), (float("nan"), 0))[0]
        print(f"{name:22} {case:24} {ms:7.2f} ms  {ms / bound:5.2f} x dense  {peak:6.2f} GiB")
    for name, (speed, peak) in models.items():
        print(f"{name:22} {'training step':24} {speed:11,.0f} tokens/s  {peak:6.1f} GiB")


if __name__ == "__main__":
    main()

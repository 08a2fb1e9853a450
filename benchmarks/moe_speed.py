"""The mixture of experts on one GPU: correct, how fast each kernel, layer and full model is.

Parts (all by default, each case on its own: one that fails prints its traceback and the rest runs):
check    outputs and gradients of the fused experts against fp32, and those of the plain path in bf16
layers   forward + backward of a layer, 65,536 tokens, compiled: a dense MLP of equal FLOPs, ours
         plain and fused, transformers' block (bf16 weights, grouped_mm); the kernels of ours
router   a router's linear layer in bf16, in fp32 and split into bf16 parts; the full router
model    a training step of 198M-A64M and of the dense 64M, compiled, packed rows, real tokens
kernels  the fused kernels at several tiles, and grouped_mm for the same products

usage: python benchmarks/moe_speed.py [--parts check layers router model kernels] [--tokens 65536]
"""

from __future__ import annotations

import argparse
import itertools
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from our_step import ours, real_tokens
from pretraining_data import documents, packed
from shapes import SHAPES
from timing import Clock, kernel_times, milliseconds, time_steps
from torch import Tensor, nn

from mengya.kernels.experts import op as fused
from mengya.kernels.experts.op import TILES, Tile, fused_experts, sort_rows
from mengya.kernels.experts.reference import grouped_experts
from mengya.kernels.linear import fp32_linear, split_linear
from mengya.models import router
from mengya.models.config.model import ModelConfig
from mengya.models.moe import MoE
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution

IS_SUPPORTED = fused.is_supported

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
# (gate_up, product, swiglu_backward, weight_gradient): tiles to compare; the first is what ships.
VARIANTS = {
    "as shipped": tuple(TILES.values()),
    "3 stages, 256 wide": (
        Tile(128, 128, 64, 8, 3), Tile(128, 256, 64, 8, 3), Tile(128, 256, 64, 8, 3),
        Tile(128, 256, 64, 8, 3),
    ),
    "4 warps, two a processor": (
        Tile(128, 64, 64, 4, 3), Tile(128, 128, 64, 4, 3), Tile(128, 128, 64, 4, 3),
        Tile(128, 128, 64, 4, 3),
    ),
    "tall": (
        Tile(256, 64, 64, 8, 4), Tile(256, 128, 64, 8, 4), Tile(256, 128, 64, 8, 3),
        Tile(256, 128, 64, 8, 4),
    ),
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


def attempt(name: str, work: Callable[[], Any]) -> Any:
    """The work's result, or None with its traceback printed."""
    try:
        return work()
    except Exception:
        print(f"--- {name} failed:")
        print("".join(traceback.format_exc().splitlines(keepends=True)[-14:]), flush=True)
        return None
    finally:
        torch.cuda.empty_cache()


def config_of(name: str) -> ModelConfig:
    return ModelConfig(
        vocab_size=6400, intermediate_size=2432, num_hidden_layers=1, num_attention_heads=8,
        num_key_value_heads=4, **LAYERS[name],
    )  # fmt: skip


def expert_inputs(
    name: str, tokens: int, dtype: torch.dtype
) -> tuple[list[Tensor], Tensor, Tensor]:
    """([x, weights, gate_up, down], chosen experts, gradient of the output); uneven load."""
    config = config_of(name)
    E, H, I = config.num_experts, config.hidden_size, config.expert_width
    torch.manual_seed(0)
    x = torch.randn(tokens, H, device="cuda")
    scores = torch.randn(tokens, E, device="cuda") + torch.linspace(0, 0.5, E, device="cuda")
    weights, chosen = scores.softmax(-1).topk(config.num_experts_per_tok)
    gate_up = torch.randn(E, 2 * I, H, device="cuda") / H**0.5
    down = torch.randn(E, H, I, device="cuda") / I**0.5
    dout = torch.randn(tokens, H, device="cuda").to(torch.bfloat16)
    rounded = [t.to(torch.bfloat16).to(dtype) for t in (x, gate_up, down)]
    leaves = [rounded[0], weights, *rounded[1:]]
    return [leaf.requires_grad_() for leaf in leaves], chosen, dout.to(dtype)


def check(name: str) -> None:
    results = {}
    for path in ("fp32", "plain", "fused", "again"):
        dtype = torch.float32 if path == "fp32" else torch.bfloat16
        compute = grouped_experts if path in ("fp32", "plain") else fused_experts
        (x, weights, gate_up, down), chosen, dout = expert_inputs(name, 8192 + 37, dtype)
        out = compute(x, weights, chosen, gate_up, down)
        out.backward(dout)
        results[path] = [out.detach(), *(t.grad for t in (x, weights, gate_up, down))]
    print(f"{name}: relative error against fp32")
    for number, part in enumerate(("out", "d x", "d weights", "d gate_up", "d down")):
        exact, plain, ours, again = (results[path][number].float() for path in results)
        errors = [((value - exact).norm() / exact.norm()).item() for value in (plain, ours)]
        same = torch.equal(ours, again)
        print(f"  {part:10} plain {errors[0]:.5f}  fused {errors[1]:.5f}  same again: {same}")


def transformers_block(config: ModelConfig) -> nn.Module:
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
    return block.cuda().bfloat16().train()


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

        def run(
            case: str = case, compiled: Linear = compiled, work: Callable[[], None] = work
        ) -> None:
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


def layer_cases(name: str) -> dict[str, Callable[[], tuple[nn.Module, bool]]]:
    """name -> (module, whether it runs under autocast)"""
    config = config_of(name)
    met = (config.num_experts_per_tok + config.n_shared_experts) * config.expert_width

    def mixture(
        supported: Callable[..., bool], linear: Linear = fp32_linear
    ) -> tuple[nn.Module, bool]:
        fused.is_supported, router.fp32_linear = supported, linear
        layer = MoE(config).cuda().train()
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.02)
        return layer, True

    cases = {
        "dense of equal FLOPs": lambda: (Dense(config.hidden_size, met).cuda(), True),
        "ours, fused": lambda: mixture(IS_SUPPORTED),
        "ours, fused, fp32 router": lambda: mixture(IS_SUPPORTED, unsplit_fp32_linear),
        "ours, plain": lambda: mixture(lambda *_: False, unsplit_fp32_linear),
        "transformers grouped_mm": lambda: (transformers_block(config), False),
    }
    if config.scoring_func == "softmax":
        del cases["ours, fused, fp32 router"]  # it has none
    return cases


def time_layer(
    name: str, case: str, make: Callable[[], tuple[nn.Module, bool]], tokens: int
) -> tuple[float, float]:
    torch._dynamo.reset()
    module, autocast = make()
    module.compile(fullgraph=case.startswith("ours"))
    hidden = config_of(name).hidden_size
    x = torch.randn(64, tokens // 64, hidden, device="cuda", dtype=torch.bfloat16)
    x.requires_grad_()
    real = torch.ones(x.shape[:2], dtype=torch.bool, device="cuda")
    dout = torch.randn_like(x)

    def work() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            out = module(x, real)[0] if isinstance(module, MoE) else module(x)
        out.backward(dout)
        for parameter in module.parameters():
            parameter.grad = None
        x.grad = None

    work()
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
    fused.is_supported, router.fp32_linear = IS_SUPPORTED, fp32_linear
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


def time_kernels(name: str, variant: str, tokens: int) -> None:
    (x, weights, gate_up, down), chosen, dout = expert_inputs(name, tokens, torch.bfloat16)
    rows, products = tokens * chosen.shape[1], gate_up[0].numel()
    flops = {  # in units of a product with `down`, which has half the elements of gate_up
        "gate_up": 2, "product": 3, "swiglu_backward": 1, "weight_gradient": 3,
    }  # fmt: skip
    kept = dict(TILES)
    TILES.update(zip(kept, VARIANTS[variant], strict=True))

    def work() -> None:
        fused_experts(x, weights, chosen, gate_up, down).backward(dout)

    try:
        rows_of = kernel_times(work)
    finally:
        TILES.update(kept)
    print(f"  {name} | {variant}: {sum(ms for _, ms, _ in rows_of):.2f} ms of kernels")
    for kernel, ms, calls in rows_of[:12]:
        rate = flops.get(kernel, 0) * rows * products / ms / 1e9
        print(
            f"      {ms:7.3f} ms {calls:4.1f} x {kernel[:70]}"
            + f"  {rate:.0f} TFLOP/s" * (rate > 0)
        )


@torch.no_grad()
def time_grouped_mm(name: str, tokens: int) -> None:
    (x, _, gate_up, down), chosen, dout = expert_inputs(name, tokens, torch.bfloat16)
    order, ends = sort_rows(chosen, gate_up.shape[0])
    k, I = chosen.shape[1], down.shape[2]
    sorted_x, sorted_dout = x[order // k], dout[order // k]
    wide = torch.randn(len(order), 2 * I, device="cuda", dtype=torch.bfloat16)
    narrow = torch.randn(len(order), I, device="cuda", dtype=torch.bfloat16)
    products: dict[str, tuple[Tensor, Tensor, int]] = {
        "gate_up": (sorted_x, gate_up.transpose(1, 2), 2),
        "down": (narrow, down.transpose(1, 2), 1),
        "d hidden": (sorted_dout, down, 1),
        "d x": (wide, gate_up, 2),
        "d gate_up": (wide.t(), sorted_x, 2),
        "d down": (sorted_dout.t(), narrow, 1),
    }
    for part, (a, b, times) in products.items():
        ms = milliseconds(lambda a=a, b=b: F.grouped_mm(a, b, offs=ends))
        rate = times * len(order) * gate_up[0].numel() / ms / 1e9
        print(f"      grouped_mm {part:10} {ms:7.3f} ms  {rate:.0f} TFLOP/s")
    ms = milliseconds(lambda: sorted_x @ gate_up[0].t())
    rate = 2 * len(order) * gate_up[0].numel() / ms / 1e9
    print(f"      dense matmul like gate_up {ms:7.3f} ms  {rate:.0f} TFLOP/s")
    print(f"      sorting {milliseconds(lambda: sort_rows(chosen, len(ends))):.3f} ms")


def main() -> None:
    parts = ("check", "layers", "router", "model", "kernels")
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--size", type=int, default=1024)
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    started = time.perf_counter()
    layers: dict[tuple[str, str], tuple[float, float]] = {}
    models: dict[str, tuple[float, float]] = {}
    for part in options.parts:
        print(f"== {part} (after {time.perf_counter() - started:.0f} s)", flush=True)
        for name in LAYERS if part != "model" else ():
            if part == "check":
                attempt(name, lambda name=name: check(name))
            if part == "layers":
                for case, make in layer_cases(name).items():
                    work = lambda n=name, c=case, m=make: time_layer(n, c, m, options.tokens)  # noqa: E731
                    if (result := attempt(f"{name}, {case}", work)) is not None:
                        layers[name, case] = result
            if part == "router":
                attempt(name, lambda name=name: time_router(name, options.tokens))
            if part == "kernels":
                for variant in VARIANTS:
                    attempt(
                        f"{name}, {variant}",
                        lambda n=name, v=variant: time_kernels(n, v, options.tokens),
                    )
                attempt("grouped_mm", lambda n=name: time_grouped_mm(n, options.tokens))
        for dense in (False, True) if part == "model" else ():
            work = lambda d=dense: time_model(d, options.rows, options.size)  # noqa: E731
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

"""Quantized weights against full ones in decoding: single products, then steps of the batch engine.

Products are timed over as many copies of a matrix as a model of 64M has weights, so that nothing comes from
a cache that would not in a model; on CUDA in one CUDA graph, without the host. `--tune` tries tiles of
the kernels. Models have random weights and codes; decoding is greedy from a short prompt, CUDA graphs
and merged products as in the server. On a CPU the ways take turns and the least time counts.

on one GPU (some 5 minutes):
       python benchmarks/quantized_decoding.py --tune
on a CPU (some 2 minutes a thread count):
       python benchmarks/quantized_decoding.py --shapes 26m 64m --rows 1 8 64 --models 26m 64m --threads 1
With $OUT in the environment: also JSON, in $OUT/quantized_decoding.json.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import shapes
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.generation.batch.engine import BatchEngine, EngineConfig, Request
from mengya.generation.sampling import SamplingParams
from mengya.kernels.linear import pack_linears, packs_on
from mengya.kernels.quantized import word_weight
from mengya.kernels.quantized.op import pack
from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.moe import Experts
from mengya.models.quantized.layers import QuantizedExperts, QuantizedLinear, merge_layers

# Hidden size, width of the feed-forward layer, outputs of the merged q, k and v.
WIDTHS = {"26m": (512, 1408, 768), "64m": (768, 2432, 1536), "200m": (1024, 3584, 2048),
          "1.5b": (1536, 8960, 2048)}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "26m": shapes.SHAPES["26m"],
    "64m": shapes.SHAPES["64m"],
    "198m-moe": shapes.SHAPES["198m-moe"],
    "1.5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
             "num_attention_heads": 12, "num_key_value_heads": 2},
}  # fmt: skip
SCHEMES = {
    "2 bits, 128": Scheme(2, 128),
    "4 bits, 32": Scheme(4, 32),
    "4 bits, 128": Scheme(4, 128),
    "8 bits, 128": Scheme(8, 128),
    "8 bits, row": Scheme(8),
    "8 bits, row, int8 inputs": Scheme(8, activations="int8"),
}
_WEIGHTS = 64_000_000  # of all copies of a matrix


def matrices(width: tuple[int, int, int]) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of a layer's four products."""
    hidden, inner, qkv = width
    return {"qkv": (qkv, hidden), "o": (hidden, hidden), "gate_up": (2 * inner, hidden),
            "down": (hidden, inner)}  # fmt: skip


def random_weight(
    scheme: Scheme, outputs: int, inputs: int, device: torch.device
) -> QuantizedWeight:
    codes = torch.randint(0, 2**scheme.bits, (outputs, inputs), dtype=torch.uint8, device=device)
    scale = torch.rand(outputs, scheme.groups(inputs), device=device)
    scale = scale / (2**scheme.bits * inputs**0.5)
    zero = torch.full_like(scale, 2 ** (scheme.bits - 1)).to(torch.uint8)
    return QuantizedWeight(scheme, codes, scale, zero)


def copies(module: nn.Module, outputs: int, inputs: int) -> list[Any]:
    return [copy.deepcopy(module) for _ in range(max(2, _WEIGHTS // (outputs * inputs)))]


def full_layers(outputs: int, inputs: int, dtype: torch.dtype, device: torch.device) -> list[Any]:
    """In the fastest layout that the engine uses."""
    linear = nn.Linear(inputs, outputs, bias=False, dtype=dtype, device=device)
    layers = copies(linear, outputs, inputs)
    if packs_on(device, dtype):
        layers = [pack_linears(_Model(layer)).lm_head for layer in layers]
    return layers


class _Model(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.lm_head = layer


Product = Callable[[Any], object]


def microseconds(products: dict[str, tuple[list[Any], Product]], cuda: bool) -> dict[str, float]:
    """The time of one product, each with another copy than the last."""
    return {name: graph_time(*p) for name, p in products.items()} if cuda else turns(products)


def graph_time(layers: list[Any], product: Product, repeats: int = 15) -> float:
    """Microseconds, the median over replays of one graph of all copies."""
    product(layers[0])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for layer in layers:
            product(layer)
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return 1000 * statistics.median(times[3:]) / len(layers)


def turns(products: dict[str, tuple[list[Any], Product]], rounds: int = 4) -> dict[str, float]:
    """Microseconds, the least over rounds in which the ways take turns."""
    best = dict.fromkeys(products, float("inf"))
    for _ in range(rounds):
        for name, (layers, product) in products.items():
            started = time.perf_counter()
            for layer in layers:
                product(layer)
            best[name] = min(best[name], (time.perf_counter() - started) / len(layers))
    return {name: 1e6 * seconds for name, seconds in best.items()}


def compare_products(
    names: list[str], rows: list[int], device: torch.device, dtype: torch.dtype
) -> Iterator[dict]:
    """One line per matrix and number of rows."""
    cases = [(name, *item) for name in names for item in matrices(WIDTHS[name]).items()]
    for name, part, (outputs, inputs) in cases:
        layers = {"full": full_layers(outputs, inputs, dtype, device)}
        for label, scheme in SCHEMES.items():
            packed = pack(random_weight(scheme, outputs, inputs, device), dtype)
            layers[label] = copies(packed, outputs, inputs)
        for M in rows:
            x = torch.randn(M, inputs, device=device, dtype=dtype)
            products = {
                label: (found, lambda layer, x=x: layer(x)) for label, found in layers.items()
            }
            times = microseconds(products, device.type == "cuda")
            line = {"shape": name, "matrix": part, "outputs": outputs, "inputs": inputs, "rows": M}
            print_line(line, times)
            yield {**line, "us": times}


def print_line(line: dict[str, Any], times: dict[str, float]) -> None:
    size = f"{line['outputs']:>6}x{line['inputs']:<5}"
    head = f"{line['shape']:5} {line['matrix']:8} {size} {line['rows']:3} rows"
    cells = [f"{label} {us:7.1f} us ({times['full'] / us:4.2f}x)" for label, us in times.items()]
    print(head, " | ".join(cells), flush=True)


def paths(names: list[str], device: torch.device) -> Iterator[dict]:
    """Which of the three Triton paths is fastest at how many rows: for the limits between them."""
    for name, label in itertools.product(names, ("4 bits, 128", "8 bits, row")):
        for part, (outputs, inputs) in matrices(WIDTHS[name]).items():
            weight = random_weight(SCHEMES[label], outputs, inputs, device)
            layers = copies(word_weight.WordWeight(weight), outputs, inputs)
            for M in (1, 2, 4, 8, 16, 32, 64, 128, 256):
                x = torch.randn(M, inputs, device=device, dtype=torch.bfloat16)
                ways: dict[str, Callable[[Any], Tensor]] = {
                    "one row": lambda w, x=x: word_weight.multiply_one_row(w, x),
                    "rows": lambda w, x=x: word_weight.multiply_rows(w, x),
                    "unpack": lambda w, x=x: F.linear(x, word_weight.unpack(w, x.dtype)),
                }
                if M > 16:
                    del ways["one row"]
                times = {way: graph_time(layers, run) for way, run in ways.items()}
                cells = " | ".join(f"{way} {us:7.1f}" for way, us in times.items())
                print(f"{name:5} {part:8} {label} {M:3} rows: {cells}", flush=True)
                yield {"shape": name, "matrix": part, "scheme": label, "rows": M, "us": times}


def tiles(rows: int) -> list[word_weight.Tile]:
    """To try, those in use first."""
    if rows == 1:
        found = itertools.product((2, 4, 8, 1), (128, 256, 64, 32), (1,), (1, 2, 4))
    else:
        found = itertools.product((32, 64, 16), (32, 64, 16), (16,), (2, 4, 1))
    return [word_weight.Tile(*tile) for tile in found]


def tune(names: list[str], device: torch.device, seconds: float) -> Iterator[dict]:
    """The time of each tile that was tried within `seconds`, a quarter of them for each case."""
    for label, M in itertools.product(("4 bits, 128", "8 bits, row"), (1, 16)):
        until = time.perf_counter() + seconds / 4
        layers: dict[tuple[str, str], list[Any]] = {}
        for name in names:
            for part, (outputs, inputs) in matrices(WIDTHS[name]).items():
                weight = random_weight(SCHEMES[label], outputs, inputs, device)
                layers[name, part] = copies(word_weight.WordWeight(weight), outputs, inputs)
        found: dict[tuple[str, str], list[tuple[float, word_weight.Tile]]] = {k: [] for k in layers}
        multiply = word_weight.multiply_one_row if M == 1 else word_weight.multiply_rows
        for tile in tiles(M):
            if time.perf_counter() > until:
                break
            for key, matrix in layers.items():
                x = torch.randn(M, matrix[0].in_features, device=device, dtype=torch.bfloat16)
                us = graph_time(matrix, lambda w, x=x, t=tile, f=multiply: f(w, x, t), 8)
                found[key].append((us, tile))
        for (name, part), results in found.items():
            cells = " | ".join(f"{us:.1f} {list(tile)}" for us, tile in sorted(results)[:4])
            head = f"{name:5} {part:8} {label} {M:2} rows, {len(results)} tiles"
            print(f"{head}: {results[0][0]:.1f} {list(results[0][1])}; best {cells}", flush=True)
            yield {"shape": name, "matrix": part, "scheme": label, "rows": M, "us": results}


def quantize(model: CausalLM, scheme: Scheme) -> CausalLM:
    """Random codes in the place of every linear layer inside the decoder layers, and of every expert."""
    device, dtype = model.lm_head.weight.device, model.lm_head.weight.dtype
    for module in list(model.model.layers.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Experts):
                E, hidden, width = child.down_proj.shape
                setattr(module, name, QuantizedExperts(E, hidden, width))
    for module in list(model.model.layers.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and name != "shared_expert_gate":
                weight = random_weight(scheme, child.out_features, child.in_features, device)
                layer = QuantizedLinear(child, scheme)
                layer.packed = pack(weight, dtype)
                setattr(module, name, layer)
    merge_layers(model)
    return model


def decode_engine(model: CausalLM, streams: int, new: int) -> BatchEngine:
    engine = BatchEngine(
        model, EngineConfig(max_running=streams, max_waiting=streams, prefix_reuse=False)
    )
    for number in range(streams):
        prompt = tuple((7 * number + k) % 6400 for k in range(32))
        engine.add(Request(prompt, SamplingParams(max_new_tokens=new, temperature=0)))
    while engine.stats.waiting or engine.stats.generated_tokens < 3 * streams:
        engine.step()
    return engine


def step_seconds(engine: BatchEngine, steps: int) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        engine.step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps


def compare_models(
    names: list[str], batches: list[int], device: torch.device, dtype: torch.dtype
) -> Iterator[dict]:
    """Milliseconds of a decoding step and tokens/s, full and quantized."""
    rounds, steps = (5, 60) if device.type == "cuda" else (4, 24)
    chosen = {"full": None, **{key: SCHEMES[key] for key in ("4 bits, 128", "8 bits, row")}}
    for name, streams in itertools.product(names, batches):
        config = ModelConfig(vocab_size=6400, max_position_embeddings=2048, **MODELS[name])
        engines: dict[str, BatchEngine] = {}
        for label, scheme in chosen.items():
            torch.manual_seed(0)
            model = CausalLM(config).to(device, dtype).eval()
            if scheme is not None:
                quantize(model, scheme)
            engines[label] = decode_engine(model, streams, 40 + rounds * steps)
        best = dict.fromkeys(engines, float("inf"))
        for _ in range(rounds):
            for label, engine in engines.items():
                best[label] = min(best[label], step_seconds(engine, steps))
        cells = [
            f"{label} {1e3 * s:.3f} ms, {streams / s:,.0f} tok/s ({best['full'] / s:.2f}x)"
            for label, s in best.items()
        ]
        print(f"{name:5} batch {streams:2}: {' | '.join(cells)}", flush=True)
        yield {"model": name, "batch": streams, "seconds": best}
        del engines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", nargs="*", default=["64m", "200m", "1.5b"], choices=WIDTHS)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--models", nargs="*", default=["64m", "1.5b", "198m-moe"], choices=MODELS)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--tune-seconds", type=float, default=120)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    cuda = torch.cuda.is_available() and not options.cpu
    device = torch.device("cuda" if cuda else "cpu")
    dtype = torch.bfloat16 if cuda else torch.float32
    where = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, {dtype}, torch {torch.__version__}", flush=True)
    results: dict[str, Any] = {"device": where, "torch": torch.__version__}
    parts: dict[str, Iterator[dict]] = {
        "models": compare_models(options.models, options.batches, device, dtype),
        "products": compare_products(options.shapes, options.rows, device, dtype),
    }
    if options.tune and cuda:
        parts["paths"] = paths([s for s in options.shapes if s != "200m"], device)
        tuned = [s for s in options.shapes if s != "200m"]
        parts["tune"] = tune(tuned, device, options.tune_seconds)
    for name, part in parts.items():
        print(f"\n{name}", flush=True)
        results[name] = list(part)
        if "OUT" in os.environ:
            Path(os.environ["OUT"], "quantized_decoding.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()

"""Generation speed, ours beside transformers with the same weights and prompts, in one run.

Greedy, random weights, prompts of different lengths, no stop token: everyone makes the same number
of tokens. Counted are new tokens per second, prefill included; the median of the repeats. The ways
take turns within a repeat, so that a busy moment of the machine hits all of them.

usage: python benchmarks/generation_speed.py [--shape 26m] [--streams 8] [--new 128] [--cpu]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from mengya.generation.batch_engine import BatchEngine, EngineConfig, Request
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.models.causal_lm import CausalLM
from mengya.models.config import ModelConfig
from mengya.runtime import pick_device

SHAPES: dict[str, dict[str, Any]] = {
    "26m": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
            "num_attention_heads": 8, "num_key_value_heads": 2},
    "64m": {"hidden_size": 768, "intermediate_size": 2432, "num_hidden_layers": 8,
            "num_attention_heads": 8, "num_key_value_heads": 4},
}  # fmt: skip

Prompts = list[list[int]]


def transformers_model(config: ModelConfig, ours: CausalLM) -> Any:
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "tie_word_embeddings", "max_position_embeddings", "rms_norm_eps")  # fmt: skip
    stock = Qwen3Config(
        head_dim=config.head_width,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        **{name: getattr(config, name) for name in names},
    )
    theirs: Any = Qwen3ForCausalLM(stock)
    theirs.load_state_dict(ours.state_dict())
    return theirs.to(ours.lm_head.weight.device, ours.lm_head.weight.dtype).eval()


def engine_way(model: CausalLM, prompts: Prompts, new: int, streams: int) -> Callable[[], Prompts]:
    params = SamplingParams(max_new_tokens=new, temperature=0)
    # As a server keeps it; but no prompt may be found in the prefix cache of the last repeat.
    settings = EngineConfig(max_running=streams, max_waiting=len(prompts), prefix_reuse=False)
    engine = BatchEngine(model, settings)

    def run() -> Prompts:
        made: dict[int, list[int]] = {engine.add(Request(tuple(p), params)): [] for p in prompts}
        while engine.has_work:
            for event in engine.step():
                if event.token is not None:
                    made[event.request_id].append(event.token)
        return list(made.values())

    return run


def loop_way(model: CausalLM, prompts: Prompts, new: int) -> Callable[[], Prompts]:
    params = SamplingParams(max_new_tokens=new, temperature=0)
    return lambda: generate(model, prompts, params, [])


def padded_way(theirs: Any, prompts: Prompts, new: int, streams: int) -> Callable[[], Prompts]:
    """transformers generate(), `streams` prompts at a time, padded on the left."""

    def run() -> Prompts:
        made: Prompts = []
        for start in range(0, len(prompts), streams):
            part = prompts[start : start + streams]
            longest = max(map(len, part))
            ids = torch.tensor([[0] * (longest - len(p)) + p for p in part], device=theirs.device)
            mask = torch.tensor(
                [[0] * (longest - len(p)) + [1] * len(p) for p in part], device=theirs.device
            )
            out = theirs.generate(
                ids, attention_mask=mask, do_sample=False, max_new_tokens=new, min_new_tokens=new,
                pad_token_id=0,
            )  # fmt: skip
            made += out[:, longest:].tolist()
        return made

    return run


def continuous_way(theirs: Any, prompts: Prompts, new: int) -> Callable[[], Prompts]:
    settings = GenerationConfig(
        max_new_tokens=new, do_sample=False, eos_token_id=-1, pad_token_id=0
    )

    def run() -> Prompts:
        out = theirs.generate_batch(inputs=prompts, generation_config=settings)
        by_number = sorted(out.values(), key=lambda one: int(one.request_id.rsplit("_", 1)[-1]))
        return [one.generated_tokens for one in by_number]

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="26m")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--requests", type=int, help="default: as many as streams")
    parser.add_argument("--prompt", type=int, nargs=2, default=(32, 256), help="shortest, longest")
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--skip", nargs="*", default=[], help="beginnings of names to leave out")
    options = parser.parse_args()
    device = pick_device("cpu" if options.cpu else "auto")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = ModelConfig(vocab_size=6400, max_position_embeddings=2048, **SHAPES[options.shape])
    torch.manual_seed(0)
    model = CausalLM(config).to(device, dtype).eval()
    theirs = transformers_model(config, model)
    rng = random.Random(0)
    prompts = [
        [rng.randrange(config.vocab_size) for _ in range(rng.randint(*options.prompt))]
        for _ in range(options.requests or options.streams)
    ]
    new, streams = options.new, options.streams
    ways: dict[str, Callable[[], Prompts]] = {
        "mengya BatchEngine": engine_way(model, prompts, new, streams),
        "mengya generate()": loop_way(model, prompts, new),
        "transformers generate(), padded": padded_way(theirs, prompts, new, streams),
        "transformers generate(), one by one": padded_way(theirs, prompts, new, 1),
        "transformers generate_batch()": continuous_way(theirs, prompts, new),
    }
    ways = {n: way for n, way in ways.items() if not n.startswith(tuple(options.skip) or "-")}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    same: dict[str, float] = {}
    reference: Prompts = []
    for repeat in range(options.repeats + 1):  # the first one warms up
        for name, way in ways.items():
            started = time.perf_counter()
            made = way()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
            assert [len(tokens) for tokens in made] == [new] * len(prompts), name
            reference = reference or made
            pairs = zip(made, reference, strict=True)
            same[name] = sum(a == b for a, b in pairs) / len(prompts)
    total = new * len(prompts)
    print(
        f"{options.shape}, {len(prompts)} requests, {streams} at once, prompts "
        f"{min(map(len, prompts))}-{max(map(len, prompts))}, {new} new tokens, {device}, {dtype}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    first = statistics.median(next(iter(seconds.values())))
    print(f"{'':36} {'tok/s':>9} {'ours is x':>9}  same completions")
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"{name:36} {total / middle:9,.0f} {middle / first:9.2f}  {same[name]:.0%}")


if __name__ == "__main__":
    main()

"""Generation speed, ours and transformers with the same weights and prompts, in one run.

Greedy, random weights, prompts and completions of different lengths, no stop token: everyone makes the
same number of tokens. Counted are the tokens that were asked for per second, prefill included; the
median of the repeats. A padded batch of generate() runs until its longest is done: what it makes beyond
is not counted. The ways take turns within a repeat, so that a busy moment of the machine hits all of
them. Before that, the time to the first token of a request that comes while others are decoded. Every
result is printed as it comes, ours first, so that a time limit loses only what was not reached.

usage: python benchmarks/generation_speed.py [--shape 26m] [--streams 8] [--new 128] [--cpu]
on one GPU (some 2 minutes):
       python benchmarks/generation_speed.py --shape 64m --streams 256 --prompt 100 1024 --new 100 1024 \
           --repeats 1 --skip "mengya generate" "transformers generate(), one"
where a step's time goes, at 64 and at 256 streams (some 40 seconds):
       python benchmarks/generation_speed.py --shape 64m --prompt 100 1024 --profile 64 256
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import shapes
import torch
from engine_profile import print_profile
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from mengya.generation.batch.engine import BatchEngine, EngineConfig, Request
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.runtime.device import init_device

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "26m": shapes.SHAPES["26m"],
    "64m": shapes.SHAPES["64m"],
}  # fmt: skip

Asked = list[tuple[list[int], int]]
"""Prompts, and how many tokens each wants."""
Way = Callable[[Asked], tuple[list[list[int]], float]]
"""Gives the completions and the seconds that they took, without what is done once at the start."""


def transformers_model(config: ModelConfig, ours: CausalLM) -> Any:
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "tie_word_embeddings", "max_position_embeddings",
             "rms_norm_eps")  # fmt: skip
    stock = Qwen3Config(
        head_dim=config.head_width,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        **{name: getattr(config, name) for name in names},
    )
    theirs: Any = Qwen3ForCausalLM(stock)
    theirs.load_state_dict(ours.state_dict())
    return theirs.to(ours.lm_head.weight.device, ours.lm_head.weight.dtype).eval()


def timed(
    run: Callable[[], list[list[int]]], device: torch.device
) -> tuple[list[list[int]], float]:
    started = time.perf_counter()
    made = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return made, time.perf_counter() - started


def greedy(new: int) -> SamplingParams:
    return SamplingParams(max_new_tokens=new, temperature=0)


def new_engine(model: CausalLM, streams: int, waiting: int) -> BatchEngine:
    # As a server keeps it; but no prompt may be found in the prefix cache of the last repeat.
    return BatchEngine(
        model, EngineConfig(max_running=streams, max_waiting=waiting, prefix_reuse=False)
    )


def engine_way(model: CausalLM, streams: int, waiting: int) -> Way:
    engine = new_engine(model, streams, waiting)

    def run(asked: Asked) -> list[list[int]]:
        made: dict[int, list[int]] = {
            engine.add(Request(tuple(prompt), greedy(new))): [] for prompt, new in asked
        }
        while engine.has_work:
            for event in engine.step():
                if event.token is not None:
                    made[event.request_id].append(event.token)
        return list(made.values())

    return lambda asked: timed(lambda: run(asked), model.lm_head.weight.device)


def loop_way(model: CausalLM) -> Way:
    def run(asked: Asked) -> list[list[int]]:
        most = max(new for _, new in asked)
        made = generate(model, [prompt for prompt, _ in asked], greedy(most), [])
        return [tokens[:new] for tokens, (_, new) in zip(made, asked, strict=True)]

    return lambda asked: timed(lambda: run(asked), model.lm_head.weight.device)


def padded_way(theirs: Any, streams: int) -> Way:
    """transformers generate(), `streams` prompts at a time, padded on the left."""

    def run(asked: Asked) -> list[list[int]]:
        made: list[list[int]] = []
        for start in range(0, len(asked), streams):
            part = asked[start : start + streams]
            longest, most = max(len(p) for p, _ in part), max(new for _, new in part)
            rows = [[0] * (longest - len(p)) + p for p, _ in part]
            real = [[0] * (longest - len(p)) + [1] * len(p) for p, _ in part]
            out = theirs.generate(
                torch.tensor(rows, device=theirs.device),
                attention_mask=torch.tensor(real, device=theirs.device),
                do_sample=False, max_new_tokens=most, min_new_tokens=most, pad_token_id=0,
            )  # fmt: skip
            ends = [longest + new for _, new in part]
            made += [row[longest:end] for row, end in zip(out.tolist(), ends, strict=True)]
        return made

    return lambda asked: timed(lambda: run(asked), theirs.device)


def continuous_way(theirs: Any) -> Way:
    """transformers' continuous batching: what generate_batch() does, with a length for each request."""

    def run_all(asked: Asked) -> tuple[list[list[int]], float]:
        settings = GenerationConfig(
            max_new_tokens=max(new for _, new in asked), do_sample=False, eos_token_id=-1,
            pad_token_id=0,
        )  # fmt: skip
        with theirs.continuous_batching_context_manager(
            generation_config=settings, block=True, timeout=10
        ) as manager:

            def run() -> list[list[int]]:
                numbers = [manager.add_request(p, max_new_tokens=new) for p, new in asked]
                done: dict[str, list[int]] = {}
                while len(done) < len(numbers):
                    result = manager.get_result(timeout=1)
                    if result is not None and result.is_finished():
                        done[result.request_id] = list(result.generated_tokens)
                    elif result is None and not manager.is_running():
                        raise RuntimeError("transformers' continuous batching ended by itself")
                return [done[number] for number in numbers]

            return timed(run, theirs.device)

    return run_all


def decoding_engine(model: CausalLM, streams: int, asked: Asked) -> BatchEngine:
    """An engine that decodes `streams` requests and has room for one more."""
    engine = new_engine(model, streams + 1, streams + 1)
    for prompt, _ in (asked * streams)[:streams]:
        # As long as it can be, so that all of them run to the last measurement.
        engine.add(Request(tuple(prompt), greedy(engine.context - len(prompt))))
    while engine.stats.waiting or engine.stats.generated_tokens < 3 * streams:
        engine.step()
    return engine


def first_tokens(model: CausalLM, streams: int, asked: Asked, times: int) -> list[float]:
    """Milliseconds to the first token of `times` requests, each while `streams` are decoded."""
    engine = decoding_engine(model, streams, asked)
    waits: list[float] = []
    for prompt, _ in (asked * times)[:times]:
        if engine.stats.running < streams:
            break
        started = time.perf_counter()
        number = engine.add(Request(tuple(prompt), greedy(1)))
        while all(event.request_id != number for event in engine.step()):
            pass
        waits.append(1000 * (time.perf_counter() - started))
    return waits


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="26m")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--requests", type=int, help="default: as many as streams")
    parser.add_argument("--prompt", type=int, nargs=2, default=(32, 256), help="shortest, longest")
    parser.add_argument("--new", type=int, nargs="+", default=[128], help="or shortest, longest")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--skip", nargs="*", default=[], help="beginnings of names to leave out")
    parser.add_argument(
        "--running", type=int, default=64, help="streams decoded meanwhile; 0: none"
    )
    parser.add_argument(
        "--profile",
        type=int,
        nargs="+",
        metavar="STREAMS",
        help="only say where our steps' time goes",
    )
    options = parser.parse_args()
    device = init_device("cpu" if options.cpu else "auto")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    context = max(2048, options.prompt[1] + options.new[-1])
    config = ModelConfig(vocab_size=6400, max_position_embeddings=context, **SHAPES[options.shape])
    torch.manual_seed(0)
    model = CausalLM(config).to(device, dtype).eval()
    rng = random.Random(0)
    asked: Asked = [
        (
            [rng.randrange(config.vocab_size) for _ in range(rng.randint(*options.prompt))],
            rng.randint(options.new[0], options.new[-1]),
        )
        for _ in range(options.requests or options.streams)
    ]
    if options.profile:
        print(f"{options.shape}, {describe(device)}, {dtype}, torch {torch.__version__}")
        for streams in options.profile:
            print_profile(decoding_engine(model, streams, asked), tuple(asked[0][0]))
        return
    if options.running:
        waits = sorted(first_tokens(model, options.running, asked * options.running, 40))
        print(
            f"first token with {options.running} streams, prompts as above: median "
            f"{statistics.median(waits):.1f} ms, 95 % below {waits[int(len(waits) * 0.95)]:.1f} ms "
            f"({len(waits)} requests)",
            flush=True,
        )
    streams = options.streams
    theirs = transformers_model(config, model)
    makers: dict[str, Callable[[], Way]] = {
        "mengya BatchEngine": lambda: engine_way(model, streams, len(asked)),
        "mengya generate()": lambda: loop_way(model),
        "transformers generate_batch()": lambda: continuous_way(theirs),
        "transformers generate(), padded": lambda: padded_way(theirs, streams),
        "transformers generate(), one by one": lambda: padded_way(theirs, 1),
    }
    skipped = tuple(options.skip) or ("-",)
    makers = {name: make for name, make in makers.items() if not name.startswith(skipped)}
    ways: dict[str, Way] = {}
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    same: dict[str, float] = {}
    reference: list[list[int]] = []
    for repeat in range(options.repeats):
        for name, make in makers.items():
            if name not in ways:
                ways[name], took = warmed_up(make, asked[:streams])
                print(f"{name}: made and warmed up in {took:.1f} s", flush=True)
            made, took = ways[name](asked)
            print(f"{name}: repeat {repeat + 1} took {took:.2f} s", flush=True)
            seconds[name].append(took)
            assert [len(tokens) for tokens in made] == [new for _, new in asked], name
            reference = reference or made
            pairs = zip(made, reference, strict=True)
            same[name] = sum(a == b for a, b in pairs) / len(asked)
    total = sum(new for _, new in asked)
    print(
        f"{options.shape}, {len(asked)} requests, {streams} at once, prompts "
        f"{min(len(p) for p, _ in asked)}-{max(len(p) for p, _ in asked)}, new tokens "
        f"{min(new for _, new in asked)}-{max(new for _, new in asked)}, {describe(device)}, {dtype}, "
        f"torch {torch.__version__}"
    )
    first = statistics.median(next(iter(seconds.values()), [1.0]))
    print(f"{'':36} {'seconds':>9} {'tok/s':>9} {'ours is x':>9}  same completions")
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(
            f"{name:36} {middle:9.2f} {total / middle:9,.0f} {middle / first:9.2f}  {same[name]:.0%}"
        )


def warmed_up(make: Callable[[], Way], asked: Asked) -> tuple[Way, float]:
    """A way after a short run, so that nothing is compiled while it is timed; the seconds for both."""
    started = time.perf_counter()
    way = make()
    way([(prompt, min(new, 16)) for prompt, new in asked])
    return way, time.perf_counter() - started


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()

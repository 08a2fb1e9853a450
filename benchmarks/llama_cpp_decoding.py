"""Decoding on a CPU at batch 1, ours and llama.cpp's, at the same bits: tokens per second.

The same random weights as GGUF files (F32, Q8_0, Q4_0) and in our layers (fp32; 8 bits a row; 4 bits in
groups of 32, as Q4_0), greedy from a prompt of 32 tokens. The ways take turns on the same cores, and each
one's fastest window of tokens counts. With one thread the seconds are those of the processor that the
process used, so that others on the machine cost nobody anything but its caches. llama.cpp runs in a
process of its own, with a Python that has llama-cpp-python; between its turns it sleeps.

usage: python benchmarks/llama_cpp_decoding.py --python /opt/oracles/llama/bin/python [--shapes 26m 64m]
       [--threads 1 2] [--rounds 6] [--profile: what the operations of one step take]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import shapes
import torch
from quantized_decoding import quantize
from torch.profiler import ProfilerActivity, profile

from mengya.export.gguf.write import write_gguf
from mengya.export.source import Source
from mengya.generation.batch.engine import BatchEngine, EngineConfig, Request
from mengya.generation.engine import stream
from mengya.generation.sampling import SamplingParams
from mengya.kernels.quantized.weight import Scheme
from mengya.models.causal_lm import CausalLM
from mengya.tokenizer.train import train_tokenizer

PROMPT = [7 * k % 300 for k in range(32)]
WINDOW = 12  # tokens of a turn
SCHEMES = {
    "fp32": None,
    "8 bits": Scheme(8),
    "8 bits, int8 inputs": Scheme(8, activations="int8"),
    "4 bits": Scheme(4, 32),
}
THEIRS = r"""
import ctypes, json, sys, time
import llama_cpp as llama
path, threads = sys.argv[1], int(sys.argv[2])
clock = time.process_time if threads == 1 else time.perf_counter
silent = llama.llama_log_callback(lambda *_: None)
llama.llama_log_set(silent, ctypes.c_void_p(0))
llama.llama_backend_init()
params = llama.llama_model_default_params()
params.n_gpu_layers = 0
model = llama.llama_model_load_from_file(path.encode(), params)
context = llama.llama_context_default_params()
context.n_ctx, context.n_threads, context.n_threads_batch = 2048, threads, threads
ctx = llama.llama_init_from_model(model, context)
chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_greedy())
def step(ids):
    array = (llama.llama_token * len(ids))(*ids)  # the batch only points to it
    assert llama.llama_decode(ctx, llama.llama_batch_get_one(array, len(ids))) == 0
    return llama.llama_sampler_sample(chain, ctx, -1)
token = step(json.loads(sys.argv[3]))
print("ready", flush=True)
for line in sys.stdin:
    begun = clock()
    for _ in range(int(line)):
        token = step([token])
    print(clock() - begun, flush=True)
"""

Turn = Callable[[], float]
"""Decodes WINDOW tokens more; gives the seconds."""


def chat_turn(model: CausalLM) -> Turn:
    """The loop of `mengya chat`."""
    tokens = stream(model, PROMPT, SamplingParams(max_new_tokens=1900, temperature=0), [])
    next(tokens)
    return lambda: _timed(lambda: [next(tokens) for _ in range(WINDOW)])


def server_turn(model: CausalLM) -> Turn:
    engine = BatchEngine(model, EngineConfig(max_running=1, max_waiting=1, prefix_reuse=False))
    engine.add(Request(tuple(PROMPT), SamplingParams(max_new_tokens=1900, temperature=0)))
    for _ in range(4):
        engine.step()
    return lambda: _timed(lambda: [engine.step() for _ in range(WINDOW)])


def _timed(work: Callable[[], object]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    work()
    return clock() - started


class Theirs:
    """llama.cpp with one file."""

    def __init__(self, python: str, path: Path, threads: int) -> None:
        command = [python, "-c", THEIRS, str(path), str(threads), json.dumps(PROMPT)]
        self._process: Any = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"

    def __call__(self) -> float:
        self._process.stdin.write(f"{WINDOW}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def models(shape: str) -> Iterator[tuple[str, CausalLM]]:
    """The same weights in full; random codes otherwise, since speed does not depend on them."""
    for label, scheme in SCHEMES.items():
        torch.manual_seed(0)
        model = CausalLM(shapes.config_of(shape, 2048)).eval()
        yield label, model if scheme is None else quantize(model, scheme)


def compare(shape: str, threads: int, python: str, folder: Path, rounds: int) -> None:
    torch.set_num_threads(threads)
    ways: dict[str, Turn] = {}
    for label, model in models(shape):
        ways[f"chat, {label}"], ways[f"server, {label}"] = chat_turn(model), server_turn(model)
    theirs = {}
    for name in ("F32", "Q8_0", "Q4_0"):
        theirs[f"llama.cpp, {name}"] = Theirs(python, folder / f"{shape}-{name}.gguf", threads)
    ways |= theirs
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for label, turn in ways.items():
            best[label] = min(best[label], turn())
    for process in theirs.values():
        process.close()
    print(f"\n{shape}, {threads} threads: tokens/s, ms a token")
    for label, seconds in best.items():
        print(f"{label:30} {WINDOW / seconds:8,.0f} {1e3 * seconds / WINDOW:8.2f}", flush=True)


def write_files(shape: str, folder: Path) -> None:
    _, model = next(models(shape))
    tokenizer = train_tokenizer(["今天天气不错，Hello world 123\n" * 50], 330, show_progress=False)
    for name in ("F32", "Q8_0", "Q4_0"):
        write_gguf(
            Source(model, tokenizer, folder), folder / f"{shape}-{name}.gguf", name, "random"
        )


def print_profile(shape: str) -> None:
    """What the operations of one step of the chat loop take."""
    for label, model in models(shape):
        turn = chat_turn(model)
        turn()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            turn()
        found = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
        total, calls = sum(e.self_cpu_time_total for e in found), sum(e.count for e in found)
        print(
            f"\n{shape}, {label}: {total / WINDOW:,.0f} us in {calls / WINDOW:.0f} operations a step"
        )
        for event in found[:12]:
            print(
                f"{event.self_cpu_time_total / WINDOW:9,.0f} us {event.count / WINDOW:6.0f}  {event.key}"
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", required=True, help="one that has llama-cpp-python")
    parser.add_argument("--shapes", nargs="+", default=["26m", "64m"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as folder:
        for shape in options.shapes:
            if options.profile:
                print_profile(shape)
                continue
            write_files(shape, Path(folder))
            for threads in options.threads:
                compare(shape, threads, options.python, Path(folder), options.rounds)


if __name__ == "__main__":
    main()

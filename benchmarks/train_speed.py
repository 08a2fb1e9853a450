"""Training speed and memory, ours beside transformers' class of the same shape, in one run.

Same device, data, dtype and optimizer (fused AdamW): documents of 64 to 1,024 tokens. Ours packs
them into full rows, masked from each other; transformers gets what its users give it, one document
a row, padded to the longest of the batch. Counted are real tokens, never padding.

usage: python benchmarks/train_speed.py [--shape 26m] [--rows 64] [--steps 20] [--cpu]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from mengya.batch import IGNORE_INDEX, Batch
from mengya.data.datasets import Row
from mengya.data.loader import collate
from mengya.losses.next_token import NextToken
from mengya.losses.token_nll import token_nll
from mengya.models.causal_lm import CausalLM
from mengya.models.config import ModelConfig
from mengya.runtime import pick_autocast_dtype, pick_device
from mengya.training.optim import OptimizerConfig, build_optimizers
from mengya.training.strategy import SingleDevice

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 3,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "26m": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
            "num_attention_heads": 8, "num_key_value_heads": 2},
    "64m": {"hidden_size": 768, "intermediate_size": 2432, "num_hidden_layers": 8,
            "num_attention_heads": 8, "num_key_value_heads": 4},
}  # fmt: skip


def documents(count: int, longest: int, vocab: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(longest // 16, longest + 1, count)
    return [rng.integers(0, vocab, n + 1) for n in lengths]


def packed(docs: list[np.ndarray], rows: int, size: int) -> Batch:
    """Documents end to end; the one at a row's end is cut, as `data.packing` cuts long ones."""
    stream = iter(docs * 8)
    made = []
    for _ in range(rows):
        ids, labels, positions, numbers, ends = [], [], [], [], []
        while len(ids) < size:
            doc = next(stream)[: size - len(ids) + 1]
            ids += doc[:-1].tolist()
            labels += doc[1:].tolist()
            positions += range(len(doc) - 1)
            numbers += [len(ends)] * (len(doc) - 1)
            ends.append(len(ids))
        columns = [np.array(column, np.int64) for column in (ids, labels, positions, numbers)]
        made.append(Row(*columns, ends=np.array(ends, np.int32)))
    return collate(made, max_documents=max(len(row.ends) for row in made) + 1)


def measure(
    step: Callable[[], None], tokens: int, steps: int, device: torch.device
) -> tuple[float, float]:
    """Median real tokens per second, and peak GiB on CUDA."""
    for _ in range(3):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    return tokens / statistics.median(seconds), peak


def ours(
    config: ModelConfig, batch: Batch, strategy: SingleDevice, compiled: bool
) -> Callable[[], None]:
    model = CausalLM(config).to(strategy.device).train()
    if compiled:
        model.compile()
    loss = NextToken(torch.compile(token_nll) if compiled else token_nll)
    optimizers = build_optimizers(model, OptimizerConfig())
    parameters = list(model.parameters())
    items = loss.items(batch)

    def step() -> None:
        with strategy.autocast():
            result = loss(model, batch.to(strategy.device))
        strategy.backward(result.loss / items)
        strategy.step(optimizers, parameters, 1.0)

    return step


def theirs(
    config: ModelConfig, docs: list[np.ndarray], strategy: SingleDevice, compiled: bool
) -> Callable[[], None]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "tie_word_embeddings")  # fmt: skip
    stock = Qwen3Config(head_dim=config.head_width, **{n: getattr(config, n) for n in names})
    model: nn.Module = Qwen3ForCausalLM(stock).to(strategy.device).train()  # type: ignore[assignment]
    if compiled:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    longest = max(len(d) - 1 for d in docs)
    ids = torch.zeros(len(docs), longest, dtype=torch.int64)
    labels = torch.full_like(ids, IGNORE_INDEX)
    mask = torch.zeros_like(ids)
    for row, doc in enumerate(docs):
        n = len(doc) - 1
        ids[row, :n] = labels[row, :n] = torch.from_numpy(doc[:-1])
        mask[row, :n] = 1
    ids, labels, mask = (t.to(strategy.device) for t in (ids, labels, mask))

    def step() -> None:
        with strategy.autocast():
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="26m")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    device = pick_device("cpu" if options.cpu else "auto")
    strategy = SingleDevice(device, pick_autocast_dtype("auto", device))
    config = ModelConfig(
        vocab_size=6400, max_position_embeddings=options.size, **SHAPES[options.shape]
    )
    batch = packed(
        documents(options.rows * 4, options.size, config.vocab_size), options.rows, options.size
    )
    docs = documents(options.rows, options.size, config.vocab_size)
    real_ours = int((batch.document_ids >= 0).sum())
    real_theirs = sum(len(d) - 1 for d in docs)
    print(f"{options.shape}, {options.rows} x {options.size}, {device}, torch {torch.__version__}")
    results = {}
    for compiled in (False, True) if device.type == "cuda" else (False,):
        for name, make, tokens in (
            ("transformers", lambda c: theirs(config, docs, strategy, c), real_theirs),
            ("mengya", lambda c: ours(config, batch, strategy, c), real_ours),
        ):
            results[name, compiled] = measure(make(compiled), tokens, options.steps, device)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    print(f"{'':14} {'compile':8} {'real tok/s':>12} {'peak GiB':>9}")
    for (name, compiled), (speed, peak) in results.items():
        print(f"{name:14} {compiled!s:8} {speed:12,.0f} {peak:9.1f}")
        if name == "mengya":
            print(f"{'':14} ratio {speed / results['transformers', compiled][0]:.2f}")


if __name__ == "__main__":
    main()

"""Hours of clients that go away: a real server under streams of which half disconnect at random.

A tiny model with random weights is served by `mengya serve` in a process of its own. Each stream sends
one request after the other (chat or completion, short or long, streamed), reads on, and in half of the
cases closes the connection at a random token. Written down every few seconds: memory of the server's
process, sequences in the batch, free pages, answers by status. At the end the engine must be idle with
every page free, and no answer may have been a 5xx; the exit status says so.

usage: python benchmarks/soak.py [--minutes 10] [--streams 64] [--seed 0]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import write_folder
from mengya.tokenizer.load import save_tokenizer
from mengya.tokenizer.train import train_tokenizer

POEM = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。"


@dataclass
class Counts:
    """What the clients saw."""

    complete: int = 0
    left: int = 0
    events: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)


def write_tiny(folder: Path) -> None:
    tokenizer = train_tokenizer([POEM] * 2, 300, show_progress=False)
    torch.manual_seed(0)
    model = CausalLM(
        ModelConfig(
            vocab_size=300, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
        )
    )  # fmt: skip
    (folder / "tokenizer").mkdir(parents=True)
    save_tokenizer(tokenizer, folder / "tokenizer")
    (folder / "model").mkdir()
    write_folder(model, tokenizer, folder / "tokenizer", torch.float32, folder / "model")


def request(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A path and a body: every kind of answer, most of them sampled, some longer than others."""
    body: dict[str, Any] = {
        "model": "model", "stream": True, "max_tokens": rng.choice((4, 32, 200)),
        "temperature": rng.choice((0, 1)), "n": rng.choice((1, 1, 1, 3)),
    }  # fmt: skip
    if rng.random() < 0.2:
        body["frequency_penalty"] = 0.5
    text = POEM[: rng.randint(1, len(POEM))] * rng.randint(1, 6)
    if rng.random() < 0.5:
        return "/v1/completions", {**body, "prompt": text}
    messages = [{"role": "user", "content": text}]
    if rng.random() < 0.1:
        body["response_format"] = {"type": "json_object"}
    return "/v1/chat/completions", {**body, "messages": messages}


async def stream(client: httpx.AsyncClient, until: float, seed: int, counts: Counts) -> None:
    rng = random.Random(seed)
    while time.monotonic() < until:
        path, body = request(rng)
        leaves_after = rng.randint(0, 60) if rng.random() < 0.5 else None
        try:
            async with client.stream("POST", path, json=body) as answer:
                counts.statuses[answer.status_code] += 1
                if answer.status_code == 429:
                    await asyncio.sleep(float(answer.headers["Retry-After"]))
                    continue
                seen = 0
                async for line in answer.aiter_lines():
                    if leaves_after is not None and seen >= leaves_after:
                        break
                    seen += line.startswith("data:")
                    counts.events += line.startswith("data:")
                    if '"error"' in line:
                        counts.broken["error in a stream"] += 1
                if leaves_after is None:
                    counts.complete += 1
                else:
                    counts.left += 1
        except httpx.HTTPError as error:
            counts.broken[type(error).__name__] += 1


async def watch(
    client: httpx.AsyncClient, process: psutil.Process, until: float, counts: Counts
) -> list[float]:
    """A line every so often; the server's memory at each, MiB."""
    began, memory = time.monotonic(), []
    every = max((until - began) / 20, 1)
    print(f"{'minute':>6} {'RSS MiB':>8} {'running':>8} {'free pages':>11} {'read':>7} {'left':>7}")
    while time.monotonic() < until:
        await asyncio.sleep(min(every, max(until - time.monotonic(), 0)))
        memory.append(process.memory_info().rss / 2**20)
        values = await gauges(client)
        print(
            f"{(time.monotonic() - began) / 60:6.1f} {memory[-1]:8.1f} {values['running']:8.0f} "
            f"{values['free_pages']:5.0f}/{values['total_pages']:.0f} {counts.complete:7} {counts.left:7}",
            flush=True,
        )
    return memory


async def gauges(client: httpx.AsyncClient) -> dict[str, float]:
    text = (await client.get("/metrics")).text
    return {
        name: float(value) for name, value in re.findall(r"^mengya_(\w+) ([\d.e+]+)$", text, re.M)
    }


async def soak(url: str, process: psutil.Process, options: argparse.Namespace) -> bool:
    counts, until = Counts(), time.monotonic() + options.minutes * 60
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        watcher = asyncio.create_task(watch(client, process, until, counts))
        streams = range(options.streams)
        await asyncio.gather(
            *(stream(client, until, options.seed + number, counts) for number in streams)
        )
        memory = await watcher
        idle = False
        for _ in range(50):  # who left last is noticed within a second
            values = await gauges(client)
            idle = values["running"] == values["waiting"] == 0
            idle = idle and values["free_pages"] == values["total_pages"]
            if idle:
                break
            await asyncio.sleep(0.1)
        healthy = (await client.get("/health")).status_code == 200
    bad = sum(number for status, number in counts.statuses.items() if status >= 500)
    quarter = max(len(memory) // 4, 1)
    early, late = (
        sum(part) / quarter for part in (memory[quarter : 2 * quarter], memory[-quarter:])
    )
    print(
        f"requests {sum(counts.statuses.values())}: {dict(counts.statuses)}, {counts.events} events"
    )
    print(
        f"read to the end {counts.complete}, left early {counts.left}, broken {dict(counts.broken)}"
    )
    print(f"memory, second quarter against last: {early:.1f} -> {late:.1f} MiB")
    print(
        f"afterwards: idle with every page free: {idle}; healthy: {healthy}; answers of 5xx: {bad}"
    )
    return idle and healthy and not bad and not counts.broken


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(Path(folder))
        server = subprocess.Popen(
            [sys.executable, "-m", "mengya", "serve", f"{folder}/model", "port=0",
             "device=cpu", "kind=chat", "batch.max_running=48"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            found = re.search(r"http://[\d.]+:\d+", line)
            if found is None:
                raise SystemExit(f"the server did not start: {line}{server.stderr.read()}")
            while httpx.get(f"{found[0]}/health").status_code != 200:
                time.sleep(0.2)
            good = asyncio.run(soak(found[0], psutil.Process(server.pid), options))
        finally:
            server.terminate()
            server.wait(timeout=60)
    sys.exit(not good)


if __name__ == "__main__":
    main()

"""/v1/embeddings with streams running: in pieces between steps, to the bit what one forward pass gives."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mengya.generation.batch.engine import EngineConfig
from mengya.models.adapters.lora import load_adapter
from mengya.models.causal_lm import CausalLM
from tests.helpers.live_server import Running, serving, tiny_model
from tests.helpers.waiting import wait_until

LAYERS = 2
CHUNK = 128
# Never ends before its limit: both stop tokens are all but banned.
STREAM: dict[str, Any] = {
    "model": "tiny", "prompt": [5, 6, 7], "max_tokens": -1, "stream": True, "temperature": 0,
    "logit_bias": {"0": -100, "2": -100},
}  # fmt: skip


class LayerLog:
    """Each layer that an embedding goes through: (steps of the engine so far, tokens)."""

    def __init__(self, server: Running) -> None:
        served = server.service.worker.served
        assert served is not None
        self.seen: list[tuple[int, int]] = []
        self.began = threading.Event()
        engine = served.engine

        def note(layer: torch.nn.Module, args: Sequence[Any], output: Any) -> None:
            if args[4] is None:  # no cache: not the engine
                self.seen.append((engine.stats.steps, args[0].shape[1]))
                self.began.set()

        for layer in served.model.model.layers:
            layer.register_forward_hook(note)


def embed(server: Running, texts: list[list[int]], model: str = "tiny") -> list[np.ndarray]:
    body = {"model": model, "input": texts, "encoding_format": "base64"}
    answer = server.http.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    data = [base64.b64decode(item["embedding"]) for item in answer.json()["data"]]
    return [np.frombuffer(vector, "<f4") for vector in data]


def in_one_pass(model: CausalLM, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        hidden = model(torch.tensor([ids]), head=lambda hidden, *_: hidden).head_output
        return F.normalize(hidden[0].float().mean(0), dim=0).numpy()


def texts_of(*lengths: int) -> list[list[int]]:
    return [[5 + (7 * i + n) % 200 for n in range(length)] for i, length in enumerate(lengths)]


def while_streaming(server: Running, work: Callable[[], Any], body: dict[str, Any]) -> list[str]:
    """Run `work` after a stream has begun and before it ends; its lines."""
    with server.http.stream("POST", "/v1/completions", json=body) as stream:
        lines = (line for line in stream.iter_lines() if line)
        said = [next(lines)]
        with ThreadPoolExecutor() as pool:
            worked = pool.submit(work)
            for line in lines:
                said.append(line)
                if worked.done():
                    break
            worked.result()
    assert "data: [DONE]" not in said, "the stream was too short to say anything"
    return said


def test_streams_go_on_between_the_pieces_of_many_long_texts(tokenizer) -> None:
    with serving(tokenizer) as server:
        log = LayerLog(server)
        batches = [texts_of(1000, 900, 3), texts_of(800), texts_of(*[10] * 60), texts_of(*[50] * 9)]

        def embed_all() -> None:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda texts: embed(server, texts), batches))

        while_streaming(server, embed_all, STREAM)
    assert len(log.seen) == LAYERS * sum(map(len, batches))
    between: Counter[int] = Counter()
    for steps, tokens in log.seen:
        # A piece ends with the layer that fills it; no second piece comes before the next step.
        assert between[steps] < CHUNK * LAYERS
        between[steps] += tokens
    total = LAYERS * sum(len(text) for texts in batches for text in texts)
    assert len(between) >= total / (CHUNK * LAYERS + 1000)
    # Short texts share a piece.
    assert len(between) < len(log.seen) / 3


def test_pieces_change_no_bit(tokenizer, adapters: dict[str, Path]) -> None:
    texts = texts_of(1, 2, 400, *[9] * 10, 50, 51)
    models = {"tiny": tiny_model()}
    models |= {name: load_adapter(tiny_model(), path).eval() for name, path in adapters.items()}
    settings = EngineConfig(prefill_chunk=50)
    with serving(tokenizer, adapters=adapters, engine=settings) as server:
        found: dict[str, list[np.ndarray]] = {}

        def embed_each() -> None:
            found.update({name: embed(server, texts, name) for name in models})

        body = {**STREAM, "model": "poet"}
        said = while_streaming(server, embed_each, body)
        # And what is streamed by one adapter is not touched by what is embedded with another.
        alone = server.http.post(
            "/v1/completions", json={**body, "stream": False, "max_tokens": 6 * len(said)}
        )
    joined = "".join(json.loads(line[6:])["choices"][0]["text"] for line in said)
    assert joined and alone.json()["choices"][0]["text"].startswith(joined)
    for name, vectors in found.items():
        for ids, vector in zip(texts, vectors, strict=True):
            assert np.array_equal(vector, in_one_pass(models[name], ids)), (name, len(ids))


def test_who_leaves_ends_the_rest(tokenizer) -> None:
    texts = texts_of(*[60] * 300)
    with serving(tokenizer) as server:
        log = LayerLog(server)
        host, port = server.url.removeprefix("http://").split(":")
        body = json.dumps({"model": "tiny", "input": texts}).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert log.began.wait(30)
        wait_until(lambda: server.service.worker.idle)
        wait_until(lambda: server.service.traffic.in_flight == 0)
        done = len(log.seen)
        assert 0 < done < LAYERS * len(texts)
        embed(server, texts_of(3))
        assert len(log.seen) == done + LAYERS


def test_a_small_request_has_its_turn_beside_a_large_one(tokenizer) -> None:
    with serving(tokenizer) as server:
        log = LayerLog(server)
        with ThreadPoolExecutor() as pool:
            large = pool.submit(embed, server, texts_of(*[60] * 150))
            log.began.wait(30)
            embed(server, texts_of(61))
            large.result()
    lengths = [tokens for _, tokens in log.seen]
    assert lengths[-1] == 60 and lengths.count(61) == LAYERS

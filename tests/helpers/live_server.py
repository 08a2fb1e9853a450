"""A real server on a free port: uvicorn in a thread, a tiny random model, the openai client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import uvicorn
from fastapi import FastAPI
from transformers import PreTrainedTokenizerFast

from mengya.generation.batch.engine import BatchEngine, EngineConfig
from mengya.models.adapters.adapter_set import AdapterSet
from mengya.models.causal_lm import CausalLM
from mengya.serving.app import create_app
from mengya.serving.runtime.model_source import ModelSource
from mengya.serving.runtime.served import Served, ServedName
from mengya.serving.runtime.served_models import ServedModels
from mengya.serving.runtime.service import Service
from mengya.serving.runtime.worker import Worker
from mengya.serving.settings import ServerSettings
from tests.helpers.random_model import small_model
from tests.helpers.waiting import wait_until

CONTEXT = 1024
POEM = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。"


def tiny_model(**changes: Any) -> CausalLM:
    return small_model(0.1, **{"max_position_embeddings": CONTEXT, **changes}).eval()


@dataclass
class Running:
    """A server that answers; `service` is that of the base."""

    url: str
    service: Service
    models: ServedModels
    app: FastAPI
    key: str

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=60)

    @property
    def http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    @property
    def idle(self) -> bool:
        """Whether the engine holds no request and every page is free."""
        stats = self.service.worker.stats
        assert stats is not None
        return (stats.running, stats.waiting) == (0, 0) and stats.free_pages == stats.total_pages


@contextmanager
def serving(
    tokenizer: PreTrainedTokenizerFast,
    *,
    settings: ServerSettings | None = None,
    engine: EngineConfig | None = None,
    adapters: dict[str, Path] | None = None,
    key: str | None = None,
    page: Path | None = None,
    before_load: Callable[[], Any] = lambda: None,
    load: Callable[[], Served] | None = None,
    sources: Mapping[str, ModelSource] | None = None,
    wait: bool = True,
) -> Iterator[Running]:
    """Serve the tiny model as `tiny`, or what `load` gives; `sources` are loaded on demand."""

    def load_tiny() -> Served:
        before_load()
        model = tiny_model()
        switch = AdapterSet(model, adapters) if adapters else None
        names = {"tiny": ServedName("chat")}
        names |= {name: ServedName("chat", name) for name in adapters or {}}
        made = BatchEngine(model, engine or EngineConfig(), switch.select if switch else None)
        return Served(made, model, tokenizer, names, switch)

    worker = Worker(load or load_tiny)
    more = {} if page is None else {"page": page}
    app = create_app(worker, settings or ServerSettings(), key, sources=sources, **more)
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    if wait:
        wait_until(lambda: worker.state == "ready", 30)
    models = app.state.models
    try:
        yield Running(f"http://127.0.0.1:{port}", models.base, models, app, key or "none")
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()

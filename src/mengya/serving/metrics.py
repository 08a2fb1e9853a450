"""Counts and times of a server, in Prometheus' text format. Holds numbers only, never a text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mengya.generation.batch.engine import EngineStats
from mengya.web.gate import CLIENT_CLOSED_REQUEST

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """What the requests of one full model count; adapters count with their base.

    Attributes:
        disconnects: of all models.
    """

    disconnects: Counter
    prompt_tokens: Counter
    cached_tokens: Counter
    completion_tokens: Counter
    first_token: Histogram
    loads: Counter


@dataclass(frozen=True, slots=True)
class ModelState:
    """One full model at this moment.

    Attributes:
        stats: of its engine, None while there is none.
        memory_bytes: that it takes now, 0 while it is not in memory.
    """

    name: str
    stats: EngineStats | None
    memory_bytes: int


class Metrics:
    """The metrics of one app, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered", "path", "status")
        self.disconnects = self._counter("disconnects", "Requests whose client went away")
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts", "model")
        self._cached_tokens = self._counter(
            "cached_tokens", "Tokens of prompts found in the cache", "model"
        )
        self._completion_tokens = self._counter("completion_tokens", "Tokens generated", "model")
        self._loads = self._counter("model_loads", "Times that a model was loaded", "model")
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From a request's arrival to its first token", "model"
        )
        self.duration = self._histogram(
            "request_seconds", "From a request's arrival to the end of its answer", "path"
        )
        self._running = self._gauge("running", "Sequences in the batch")
        self._waiting = self._gauge("waiting", "Sequences in the waiting queue")
        self._free = self._gauge("free_pages", "Pages of the cache that hold nothing needed")
        self._total = self._gauge("total_pages", "Pages of the cache")
        self._memory = self._gauge(
            "model_memory_bytes", "Weights and cache; 0 while the model is not in memory"
        )

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"mengya_{name}", help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, *labels: str) -> Histogram:
        return Histogram(
            f"mengya_{name}", help_text, labels, buckets=_SECONDS, registry=self.registry
        )

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(f"mengya_{name}", help_text, ["model"], registry=self.registry)

    def of(self, model: str) -> ModelMetrics:
        """Those of one full model, by its name."""
        return ModelMetrics(
            self.disconnects,
            self._prompt_tokens.labels(model),
            self._cached_tokens.labels(model),
            self._completion_tokens.labels(model),
            self._first_token.labels(model),
            self._loads.labels(model),
        )

    def count_answer(self, path: str, status: int, seconds: float | None) -> None:
        """`on_answer` of the web server's traffic."""
        self.requests.labels(path, str(status)).inc()
        if seconds is not None:
            self.duration.labels(path).observe(seconds)
        if status == CLIENT_CLOSED_REQUEST:
            self.disconnects.inc()

    def text(self, models: Iterable[ModelState]) -> bytes:
        """All of them, with the engines' counts of this moment."""
        for model in models:
            self._memory.labels(model.name).set(model.memory_bytes)
            stats = model.stats
            self._running.labels(model.name).set(stats.running if stats else 0)
            self._waiting.labels(model.name).set(stats.waiting if stats else 0)
            self._free.labels(model.name).set(stats.free_pages if stats else 0)
            self._total.labels(model.name).set(stats.total_pages if stats else 0)
        return generate_latest(self.registry)

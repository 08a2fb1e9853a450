"""Counts and times of a server, in Prometheus' text format. Holds numbers only, never a text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mengya.generation.batch.engine import EngineStats
from mengya.web.gate import CLIENT_CLOSED_REQUEST

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The metrics of one app, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "mengya_requests", "Requests answered", ["path", "status"], registry=self.registry
        )
        self.disconnects = Counter(
            "mengya_disconnects", "Requests whose client went away", registry=self.registry
        )
        self.prompt_tokens = Counter(
            "mengya_prompt_tokens", "Tokens of prompts", registry=self.registry
        )
        self.cached_tokens = Counter(
            "mengya_cached_tokens", "Tokens of prompts found in the cache", registry=self.registry
        )
        self.completion_tokens = Counter(
            "mengya_completion_tokens", "Tokens generated", registry=self.registry
        )
        self.first_token = Histogram(
            "mengya_time_to_first_token_seconds",
            "From a request's arrival to its first token",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "mengya_request_seconds",
            "From a request's arrival to the end of its answer",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._running = self._gauge("running", "Sequences in the batch")
        self._waiting = self._gauge("waiting", "Sequences in the waiting queue")
        self._free = self._gauge("free_pages", "Pages of the cache that hold nothing needed")
        self._total = self._gauge("total_pages", "Pages of the cache")

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(f"mengya_{name}", help_text, registry=self.registry)

    def count_answer(self, path: str, status: int, seconds: float | None) -> None:
        """`on_answer` of the web server's traffic."""
        self.requests.labels(path, str(status)).inc()
        if seconds is not None:
            self.duration.labels(path).observe(seconds)
        if status == CLIENT_CLOSED_REQUEST:
            self.disconnects.inc()

    def text(self, stats: EngineStats | None) -> bytes:
        """All of them, with the engine's counts of this moment."""
        if stats is not None:
            self._running.set(stats.running)
            self._waiting.set(stats.waiting)
            self._free.set(stats.free_pages)
            self._total.set(stats.total_pages)
        return generate_latest(self.registry)

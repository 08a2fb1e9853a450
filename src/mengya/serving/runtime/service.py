"""One server's state: its worker, settings and counts, and the model that requests may use now."""

from __future__ import annotations

import time

from mengya.serving.metrics import Metrics
from mengya.serving.runtime.schema_check import SchemaCheck
from mengya.serving.runtime.served import Served, ServedName
from mengya.serving.runtime.worker import Worker
from mengya.serving.settings import ServerSettings
from mengya.web.errors import ApiError
from mengya.web.gate import Traffic


class Service:
    """What every handler of the API is given.

    Attributes:
        started: seconds since 1970.
    """

    def __init__(self, worker: Worker, settings: ServerSettings) -> None:
        self.worker, self.settings = worker, settings
        self.metrics = Metrics()
        self.schemas = SchemaCheck(settings.schema_seconds, settings.schema_memory_mb)
        self.traffic = Traffic(on_answer=self.metrics.count_answer)
        self.started = int(time.time())

    def served(self) -> Served:
        """The model.

        Raises:
            ApiError: 503 while there is none, or when no new requests are taken.
        """
        if self.traffic.draining:
            raise ApiError(503, "the server is shutting down", code="draining", retry_after=10)
        if self.worker.state == "loading" or self.worker.served is None:
            raise ApiError(503, "the model is loading", code="loading", retry_after=3)
        if self.worker.state != "ready":
            raise ApiError(503, "the engine has stopped", code="stopped")
        return self.worker.served

    def named(self, model: str) -> ServedName:
        """What a request's model name means.

        Raises:
            ApiError: 404 for unknown names, 503 as `served`.
        """
        names = self.served().names
        if model not in names:
            raise ApiError(
                404,
                f"no model named {model[:100]!r}; GET /v1/models lists them",
                param="model",
                code="model_not_found",
            )
        return names[model]

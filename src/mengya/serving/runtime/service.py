"""What a handler of the API is given: the model that its request names, and the server around it."""

from __future__ import annotations

import asyncio
import time
from functools import cached_property

from mengya.serving.metrics import Metrics, ModelMetrics
from mengya.serving.runtime.schema_check import SchemaCheck
from mengya.serving.runtime.served import Served, ServedName
from mengya.serving.runtime.worker import Worker
from mengya.serving.settings import ServerSettings
from mengya.web.errors import ApiError
from mengya.web.gate import Traffic


class Service:
    """One full model of a server, with its adapters: `ServedModels.use` gives the one of a name.

    Attributes:
        schemas: the check of schemas against this model's vocabulary.
        started: seconds since 1970.
    """

    def __init__(
        self, worker: Worker, settings: ServerSettings, traffic: Traffic, metrics: Metrics
    ) -> None:
        self.worker, self.settings, self.traffic = worker, settings, traffic
        self.schemas = SchemaCheck(settings.schema_seconds, settings.schema_memory_mb)
        self.started = int(time.time())
        self._metrics = metrics

    @cached_property
    def metrics(self) -> ModelMetrics:
        """Counts of this model, which must have been loaded."""
        assert self.worker.served is not None
        return self._metrics.of(self.worker.served.name)

    async def close(self) -> None:
        """End the engine after its present step, and let go of the model."""
        await self.schemas.close()
        await asyncio.to_thread(self.worker.stop)
        self.worker.served = None

    def served(self) -> Served:
        """The model.

        Raises:
            ApiError: 503 while there is none, or when no new requests are taken.
        """
        check_not_draining(self.traffic)
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
            raise unknown_model(model)
        return names[model]


def unknown_model(name: str) -> ApiError:
    """The answer for a name that nothing here has."""
    message = f"no model named {name[:100]!r}; GET /v1/models lists them"
    return ApiError(404, message, param="model", code="model_not_found")


def check_not_draining(traffic: Traffic) -> None:
    """
    Raises:
        ApiError: 503, the server takes no new requests.
    """
    if traffic.draining:
        raise ApiError(503, "the server is shutting down", code="draining", retry_after=10)

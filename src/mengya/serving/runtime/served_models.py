"""All that a server serves: the base with its adapters, always in memory, and the models loaded on demand.

Takes the base's worker and the sources of the others; gives each request the `Service` of the model that it
names, and says what there is. Knows nothing of how requests are worded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request as HttpRequest

from mengya.serving.metrics import Metrics, ModelState
from mengya.serving.runtime.model_facts import ModelFacts
from mengya.serving.runtime.model_source import ModelSource
from mengya.serving.runtime.on_demand import OnDemandModels
from mengya.serving.runtime.served import ModelKind
from mengya.serving.runtime.service import Service, unknown_model
from mengya.serving.runtime.worker import Worker
from mengya.serving.settings import ServerSettings
from mengya.web.gate import Traffic


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One name that requests may ask for.

    Attributes:
        kind: None: the model was not loaded yet, and only then it is known.
        loaded: whether it is in memory.
        memory_bytes: that it takes, or would take; None for an adapter, which is part of its base.
        facts: of an adapter, those of its base.
    """

    name: str
    kind: ModelKind | None
    context: int
    adapter: bool
    loaded: bool
    memory_bytes: int | None
    facts: ModelFacts


class ServedModels:
    """
    Attributes:
        base: the model that the server was started for.
        on_demand: the others.
    """

    def __init__(
        self, base: Worker, settings: ServerSettings, sources: Mapping[str, ModelSource]
    ) -> None:
        self.metrics = Metrics()
        self.traffic = Traffic(on_answer=self.metrics.count_answer)

        def service(worker: Worker) -> Service:
            return Service(worker, settings, self.traffic, self.metrics)

        self.base = service(base)
        self.on_demand = OnDemandModels(sources, settings.max_loaded_models, self.traffic, service)

    @asynccontextmanager
    async def use(self, name: str, http: HttpRequest) -> AsyncIterator[Service]:
        """The service of the model that a request names, loaded first where it must be.

        It stays in memory inside, and then until the engine has finished what was submitted inside.

        Raises:
            ApiError: 404 for unknown names; 500 when the model cannot be loaded; 503 while the base is
                loading, or when the server ends.
            ClientGone: the client disconnected while it waited.
        """
        self.base.served()
        if name not in self.on_demand.models:
            self.base.named(name)
            yield self.base
            return
        async with self.on_demand.use(name, http) as service:
            yield service

    def entries(self) -> list[ModelEntry]:
        """The base, its adapters, then the others.

        Raises:
            ApiError: 503 while the base is loading, or when the server ends.
        """
        base = self.base.served()
        memory = base.engine.memory_bytes
        found = [
            ModelEntry(
                name, one.kind, base.context, one.adapter is not None, True,
                memory if one.adapter is None else None, base.facts,
            )
            for name, one in base.names.items()
        ]  # fmt: skip
        for name, model in self.on_demand.models.items():
            found.append(
                ModelEntry(
                    name, model.kind, model.context, False, model.is_loaded, model.memory_bytes,
                    model.source.facts,
                )
            )  # fmt: skip
        return found

    def entry(self, name: str) -> ModelEntry:
        """One of `entries`.

        Raises:
            ApiError: as `entries`; 404 for unknown names.
        """
        for entry in self.entries():
            if entry.name == name:
                return entry
        raise unknown_model(name)

    def metrics_text(self) -> bytes:
        """All counts, in Prometheus' text format."""
        states = []
        if (base := self.base.worker.served) is not None:
            states.append(ModelState(base.name, self.base.worker.stats, base.engine.memory_bytes))
        for name, model in self.on_demand.models.items():
            if model.service is None:
                states.append(ModelState(name, None, 0))
            else:
                states.append(ModelState(name, model.service.worker.stats, model.memory_bytes))
        return self.metrics.text(states)

    @property
    def is_loading(self) -> bool:
        """Whether a thread is loading a model; true also after `stop`, which does not wait for it."""
        return self.base.worker.state == "loading" or self.on_demand.is_loading

    def cancel_all(self) -> None:
        """Give up every request in every engine."""
        self.base.worker.cancel_all()
        self.on_demand.cancel_all()

    async def stop(self) -> None:
        """End all engines. A load under way is not waited for."""
        await self.on_demand.stop()
        await self.base.close()

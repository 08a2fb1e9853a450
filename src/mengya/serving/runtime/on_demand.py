"""Full models that are loaded when a request names them, a bounded number of them in memory at once.

Takes what loads each; gives, for the time of a request, the `Service` of the one that it names. All of it
runs in the event loop. Knows nothing of the base, which is always in memory, or of what requests say.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from starlette.requests import Request as HttpRequest

from mengya.errors import UserError, user_message
from mengya.runtime.device import release_freed_memory
from mengya.serving.runtime.model_source import ModelSource
from mengya.serving.runtime.served import ModelKind, Served
from mengya.serving.runtime.service import Service, check_not_draining
from mengya.serving.runtime.worker import Worker
from mengya.web.disconnect import unless_gone
from mengya.web.errors import ApiError, where
from mengya.web.gate import Traffic

log = logging.getLogger(__name__)
_POLL = 0.05  # seconds between two looks at what no event announces: idle engines, the server's end


class OnDemandModel:
    """One of them.

    Attributes:
        kind, context, memory_bytes: estimates, until it is loaded for the first time.
        service: None while it is not in memory.
        loading: the load under way, or the last one: the model, or why it failed.
        requests: that were let in and have not yet handed all their work to the engine.
        last_used: a larger number is later.
    """

    def __init__(self, name: str, source: ModelSource) -> None:
        self.name, self.source = name, source
        self.kind: ModelKind | None = source.kind
        self.context, self.memory_bytes = source.memory.context, source.memory.total
        self.service: Service | None = None
        self.loading: asyncio.Task[Service | ApiError] | None = None
        self.requests = self.last_used = 0

    def arrived(self, served: Served, service: Service) -> None:
        """It is in memory now."""
        self.service = service
        self.kind = served.names[self.name].kind
        self.context, self.memory_bytes = served.context, served.engine.memory_bytes

    @property
    def is_loading(self) -> bool:
        return self.loading is not None and not self.loading.done()

    @property
    def is_loaded(self) -> bool:
        """In memory, its engine not broken."""
        return self.service is not None and self.service.worker.state == "ready"

    @property
    def takes_memory(self) -> bool:
        return self.is_loading or self.service is not None

    @property
    def is_idle(self) -> bool:
        """Whether nobody would miss it."""
        return self.service is not None and self.service.worker.idle and not self.requests


class OnDemandModels:
    """Lets requests in, first come, first served, and loads and unloads models for them.

    A request that needs room while every model in memory is answering waits for the first that is
    idle; requests that come after it wait behind it, so that busy models cannot keep another one out.
    """

    def __init__(
        self,
        sources: Mapping[str, ModelSource],
        most: int,
        traffic: Traffic,
        make_service: Callable[[Worker], Service],
    ) -> None:
        """
        Args:
            sources: name in requests -> what it means.
            most: models in memory at once.
            make_service: what handlers get for a loaded model.
        """
        self.models = {name: OnDemandModel(name, source) for name, source in sources.items()}
        self._most, self._traffic, self._make_service = most, traffic, make_service
        self._door = asyncio.Lock()  # held by the request that is let in next
        self._one_change = asyncio.Lock()  # two loads at once would count the same memory as free
        self._last_load: Worker | None = None
        self._uses = itertools.count(1)

    @property
    def is_loading(self) -> bool:
        """Whether a thread is loading a model, awaited or not."""
        return self._last_load is not None and self._last_load.state == "loading"

    @asynccontextmanager
    async def use(self, name: str, http: HttpRequest) -> AsyncIterator[Service]:
        """The model, loaded first where it must be; inside, and while its engine has work, it stays.

        Raises:
            ApiError: 500 when it cannot be loaded, 503 when the server ends meanwhile.
            ClientGone: the client disconnected before it was there; a load under way continues.
        """
        model = self.models[name]
        service = await unless_gone(http, self._enter(model))
        try:
            yield service
        finally:
            self._leave(model)

    def cancel_all(self) -> None:
        """Give up every request in the engines."""
        for model in self.models.values():
            if model.service is not None:
                model.service.worker.cancel_all()

    async def stop(self) -> None:
        """End all engines. A load under way is not waited for."""
        loads = [m.loading for m in self.models.values() if m.loading is not None]
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        services = [m.service for m in self.models.values() if m.service is not None]
        await asyncio.gather(*(service.close() for service in services))

    async def _enter(self, model: OnDemandModel) -> Service:
        async with self._door:
            check_not_draining(self._traffic)
            loading = model.loading
            if loading is None or not (model.is_loaded or model.is_loading):
                await self._make_room(model)
                loading = model.loading = asyncio.create_task(self._load(model))
            model.requests += 1
        try:
            while not loading.done():
                check_not_draining(self._traffic)
                await asyncio.wait({loading}, timeout=_POLL)
            if isinstance(found := loading.result(), ApiError):
                raise found
            return found
        except BaseException:
            self._leave(model)
            raise

    def _leave(self, model: OnDemandModel) -> None:
        model.requests -= 1
        model.last_used = next(self._uses)

    async def _make_room(self, wanted: OnDemandModel) -> None:
        """Unload what was not used for longest, until one more fits."""
        if wanted.service is not None:
            await self._unload(wanted)  # its engine broke
        while len(there := [m for m in self.models.values() if m.takes_memory]) >= self._most:
            check_not_draining(self._traffic)
            idle = [model for model in there if model.is_idle]
            if idle:
                await self._unload(min(idle, key=lambda model: model.last_used))
            else:
                await asyncio.sleep(_POLL)

    async def _load(self, model: OnDemandModel) -> Service | ApiError:
        async with self._one_change:
            worker = self._last_load = Worker(model.source.load)
            worker.start()
            try:
                await worker.loaded()
            except asyncio.CancelledError:
                worker.stop()
                raise
            self._last_load = None  # of a failed one, nothing is kept
            if worker.served is None:
                return _failure(model, worker.error)
            model.arrived(worker.served, service := self._make_service(worker))
            service.metrics.loads.inc()
            return service

    async def _unload(self, model: OnDemandModel) -> None:
        service, model.service, model.loading = model.service, None, None
        assert service is not None
        # Not cut short when the client leaves that it is done for.
        await asyncio.shield(asyncio.create_task(self._release(service)))

    async def _release(self, service: Service) -> None:
        async with self._one_change:
            await service.close()
            await asyncio.to_thread(release_freed_memory)


def _failure(model: OnDemandModel, error: BaseException | None) -> ApiError:
    """Why it could not be loaded; no message of such an error holds a prompt."""
    said = None if error is None else user_message(error) or f"{type(error).__name__}: {error}"
    reason = (said or "the engine ended").splitlines()[0]
    place = "" if error is None or isinstance(error, UserError) else f" ({where(error)})"
    log.error("%s cannot be loaded from %s: %s%s", model.name, model.source.folder, reason, place)
    message = f"the model {model.name!r} cannot be loaded from {model.source.folder}: {reason}"
    return ApiError(500, message, param="model", code="load_failed")

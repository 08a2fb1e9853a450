"""`mengya serve`: our own server from loading to the end. Needs the `serve` extra."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.logging import RichHandler

from mengya.generation.batch.memory import EngineMemory
from mengya.serving.app import create_app
from mengya.serving.runtime.model_source import ModelSource
from mengya.serving.runtime.served import Served
from mengya.serving.runtime.worker import Worker
from mengya.serving.settings import ServerSettings
from mengya.web.server import DrainingServer


def run_server(
    load: Callable[[], Served],
    name: str,
    settings: ServerSettings,
    key: str | None,
    console: Console,
    sources: Mapping[str, ModelSource] | None = None,
) -> None:
    """Serve until a signal ends it.

    Args:
        load: makes the model; called in the engine's thread while the server listens already.
        name: of the base model, for the line that announces the address.
        key: what clients must send as a bearer token; None: everybody may come in.
        sources: the models that are loaded on demand, by their names in requests.

    Raises:
        UserError: the address cannot be listened on, or whatever `load` raised.
    """
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console)]
    )
    worker = Worker(load)
    app = create_app(worker, settings, key, sources=sources)
    models = app.state.models

    def announce(url: str) -> None:
        line = f"{name} at {url} (API: {url}/v1); Ctrl-C ends"
        console.print(line, markup=False, highlight=False)

    DrainingServer(
        app,
        settings,
        models.traffic,
        on_listening=announce,
        has_failed=lambda: worker.state == "failed",
        cancel_all=models.cancel_all,
    ).run()
    if worker.error is not None:
        raise worker.error
    if models.is_loading:
        os._exit(0)  # with a thread inside PyTorch, Python would abort at its end


def memory_lines(
    base: str, memory: EngineMemory, sources: Mapping[str, ModelSource], most: int
) -> list[str]:
    """What each model is estimated to take, and all that may be in memory at once.

    Args:
        base: name of the base.
        memory: of the base.
        most: models that may be in memory in addition to it.
    """
    rows = [(base, memory, "from the start")]
    rows += [(name, source.memory, "from its first request") for name, source in sources.items()]
    width = max(len(name) for name, *_ in rows)
    lines = [
        f"{name:{width}}  {_size(one.weights)} weights + {_size(one.pages)} keys and values, {when}"
        for name, one, when in rows
    ]
    largest = sorted((source.memory.total for source in sources.values()), reverse=True)[:most]
    total = _size(memory.total + sum(largest))
    return [
        *lines,
        f"at most {total} at once: the base and {len(largest)} of {len(sources)} models",
    ]


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"

"""`mengya serve`: our own server from loading to the end. Needs the `serve` extra."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from rich.console import Console
from rich.logging import RichHandler

from mengya.serving.app import create_app
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
) -> None:
    """Serve until a signal ends it.

    Args:
        load: makes the model; called in the engine's thread while the server listens already.
        name: of the base model, for the line that announces the address.
        key: what clients must send as a bearer token; None: everybody may come in.

    Raises:
        UserError: the address cannot be listened on, or whatever `load` raised.
    """
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console)]
    )
    worker = Worker(load)
    app = create_app(worker, settings, key)

    def announce(url: str) -> None:
        line = f"{name} at {url} (API: {url}/v1); Ctrl-C ends"
        console.print(line, markup=False, highlight=False)

    DrainingServer(
        app,
        settings,
        app.state.service.traffic,
        on_listening=announce,
        has_failed=lambda: worker.state == "failed",
        cancel_all=worker.cancel_all,
    ).run()
    if worker.error is not None:
        raise worker.error
    if worker.state == "loading":
        os._exit(0)  # with a thread inside PyTorch, Python would abort at its end

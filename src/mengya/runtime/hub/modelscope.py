"""Calls of modelscope_hub: without its report and log, and with HubFailure."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import ModuleType

from mengya.runtime.hub.failure import HubFailure, without


@contextmanager
def modelscope_calls(library: ModuleType, token: str | None) -> Iterator[None]:
    """Calls of the library without its report and log; failures become HubFailure."""
    errors = library.errors
    with redirect_stdout(io.StringIO()), _log_kept("modelscope_hub") as noted:
        try:
            yield
        except errors.StorageError as error:  # it says of how many files only
            causes = [cause for cause in noted if getattr(cause, "status_code", None)] or noted
            raise _failure(causes[-1] if causes else error, token) from None
        except errors.HubError as error:
            raise _failure(error, token) from None
        except (ValueError, OSError) as error:
            raise HubFailure(without(str(error), token), 400) from None


@contextmanager
def _log_kept(name: str) -> Iterator[list[Exception]]:
    """What a library logs is neither printed nor passed on; yields the exceptions that it logs."""
    noted: list[Exception] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            arguments = record.args if isinstance(record.args, tuple) else ()
            noted.extend(argument for argument in arguments if isinstance(argument, Exception))

    log = logging.getLogger(name)
    keep: list[logging.Handler] = [Keep()]
    handlers, log.handlers, propagates = log.handlers, keep, log.propagate
    log.propagate = False
    try:
        yield noted
    finally:
        log.handlers, log.propagate = handlers, propagates


def _failure(error: Exception, token: str | None) -> HubFailure:
    status = getattr(error, "status_code", None)
    timeout = isinstance(error, TimeoutError) or "timed out" in str(error)
    return HubFailure(without(str(error), token), status, timeout and status is None)

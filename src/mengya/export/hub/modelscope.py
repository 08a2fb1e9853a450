"""ModelScope, by modelscope_hub. The token is the library's own: MODELSCOPE_API_TOKEN, or `ms-hub login`."""

from __future__ import annotations

import glob
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from mengya.errors import UserError
from mengya.export.hub.files import PushedFile
from mengya.export.hub.hub import HubFailure, without
from mengya.export.hub.options import HubOptions
from mengya.runtime.optional import require

# The library waits an hour, five times, for a server that says nothing; it reads this when imported.
_SILENCE = {"MODELSCOPE_UPLOAD_BLOB_READ_TIMEOUT_SECONDS": "120"}


class ModelScopeHub:
    """A `Hub` at MODELSCOPE_ENDPOINT."""

    key = "modelscope"
    name = "ModelScope"
    token_help = (
        "Make one at https://modelscope.cn/my/myaccesstoken, then type: ms-hub login (or: export "
        "MODELSCOPE_API_TOKEN=...)"
    )

    def __init__(self) -> None:
        for name, seconds in _SILENCE.items():
            os.environ.setdefault(name, seconds)
        self._library = require("modelscope_hub", "modelscope")
        self._config = self._library.HubConfig()
        self._api = self._library.HubApi(self._config)
        self.endpoint = str(self._config.endpoint)

    def check_ready(self) -> None:
        """As `Hub.check_ready`."""
        if not self._config.token:
            raise UserError(f"there is no token for {self.name}. {self.token_help}")

    def create(self, options: HubOptions) -> bool:
        """As `Hub.create`."""
        visibility = "private" if options.private else "public"
        with self._calls():
            try:
                self._api.create_repo(options.repo, "model", visibility=visibility)
            except self._library.errors.AlreadyExistsError:
                return False
        return True

    def existing(self, options: HubOptions) -> tuple[dict[str, int], bool]:
        """As `Hub.existing`."""
        with self._calls():
            private = self._api.get_repo(options.repo, "model").visibility != 5  # PUBLIC
            try:
                entries = self._api.list_repo_files(options.repo, "model", revision=options.branch)
            except self._library.errors.NotExistError:  # no such branch, or no commit yet
                entries = []
        return {entry.path: entry.size for entry in entries if entry.type != "tree"}, private

    def upload(self, files: Sequence[PushedFile], options: HubOptions, message: str) -> str:
        """As `Hub.upload`."""
        with self._calls():
            self._api.upload_folder(
                options.repo,
                "model",
                _root(files),
                commit_message=message,
                revision=options.branch,
                allow_patterns=[glob.escape(file.name) for file in files],
                use_cache=False,  # it would not notice that a repository was deleted meanwhile
                disable_tqdm=not sys.stderr.isatty(),
            )
        return f"{self.endpoint}/models/{options.repo}"

    @contextmanager
    def _calls(self) -> Iterator[None]:
        """Calls of the library without its report and log; failures become HubFailure."""
        errors, token = self._library.errors, self._config.token
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


def _root(files: Sequence[PushedFile]) -> Path:
    """The folder that the names start from."""
    first = files[0]
    return first.path.parents[first.name.count("/")]

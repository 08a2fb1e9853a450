"""ModelScope, by modelscope_hub. The token is the library's own: MODELSCOPE_API_TOKEN, or `ms-hub login`."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mengya.errors import UserError
from mengya.export.hub.files import PushedFile
from mengya.export.hub.options import HubOptions
from mengya.runtime.hub.modelscope import modelscope_calls
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
        with modelscope_calls(self._library, self._config.token):
            try:
                self._api.create_repo(options.repo, "model", visibility=visibility)
            except self._library.errors.AlreadyExistsError:
                return False
        return True

    def existing(self, options: HubOptions) -> tuple[dict[str, int], bool]:
        """As `Hub.existing`."""
        with modelscope_calls(self._library, self._config.token):
            private = self._api.get_repo(options.repo, "model").visibility != 5  # PUBLIC
            try:
                entries = self._api.list_repo_files(options.repo, "model", revision=options.branch)
            except self._library.errors.NotExistError:  # no such branch, or no commit yet
                entries = []
        return {entry.path: entry.size for entry in entries if entry.type != "tree"}, private

    def upload(self, files: Sequence[PushedFile], options: HubOptions, message: str) -> str:
        """As `Hub.upload`."""
        with modelscope_calls(self._library, self._config.token):
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


def _root(files: Sequence[PushedFile]) -> Path:
    """The folder that the names start from."""
    first = files[0]
    return first.path.parents[first.name.count("/")]

"""The Hugging Face hub, by huggingface_hub. The token is the library's own: HF_TOKEN, or `hf auth login`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from mengya.errors import UserError
from mengya.export.hub.files import PushedFile
from mengya.export.hub.hub import HubFailure, without
from mengya.export.hub.options import HubOptions

_REAL = "https://huggingface.co"
# Seconds without a byte: the library itself waits for ever. It asks six times before it gives up.
SILENCE = 60.0


class HuggingFaceHub:
    """A `Hub` at HF_ENDPOINT."""

    key = "hf"
    name = "Hugging Face"
    token_help = (
        "Make one with the right to write at https://huggingface.co/settings/tokens, then type: hf auth "
        "login (or: export HF_TOKEN=...)"
    )

    def __init__(self) -> None:
        self.endpoint = constants.ENDPOINT
        self._api = HfApi(endpoint=self.endpoint)

    def check_ready(self) -> None:
        """As `Hub.check_ready`."""
        if constants.is_offline_mode():
            raise UserError(
                "HF_HUB_OFFLINE is set, so nothing can be pushed; type: unset HF_HUB_OFFLINE"
            )
        if not get_token():
            raise UserError(f"there is no token for {self.name}. {self.token_help}")

    def create(self, options: HubOptions) -> bool:
        """As `Hub.create`."""
        with self._calls():
            try:
                self._api.create_repo(_repo(options), private=options.private)
            except HfHubHTTPError as error:
                if error.response.status_code != 409:
                    raise
                return False
        return True

    def existing(self, options: HubOptions) -> tuple[dict[str, int], bool]:
        """As `Hub.existing`."""
        with self._calls():
            info = self._api.model_info(_repo(options))
            try:
                entries = list(
                    self._api.list_repo_tree(
                        _repo(options), recursive=True, revision=options.branch
                    )
                )
            except HfHubHTTPError as error:  # no such branch, or no commit yet
                if error.response.status_code != 404:
                    raise
                entries = []
        sizes = {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}
        return sizes, bool(info.private)

    def upload(self, files: Sequence[PushedFile], options: HubOptions, message: str) -> str:
        """As `Hub.upload`."""
        additions = [CommitOperationAdd(file.name, file.path) for file in files]
        with self._calls():
            if options.branch:
                self._api.create_branch(_repo(options), branch=options.branch, exist_ok=True)
            commit = self._api.create_commit(
                _repo(options), additions, commit_message=message, revision=options.branch
            )
        return str(commit.commit_url)

    @contextmanager
    def _calls(self) -> Iterator[None]:
        """Calls of the library, with a limit on silence, and without Xet on another server than the real
        one (it hangs there); failures become HubFailure."""
        xet_off = constants.HF_HUB_DISABLE_XET
        constants.HF_HUB_DISABLE_XET = xet_off or self.endpoint != _REAL
        set_client_factory(_impatient_client)
        try:
            if sys.stderr.isatty():
                yield
            else:
                with disable_progress_bars():
                    yield
        except (HfHubHTTPError, httpx2.HTTPError, OfflineModeIsEnabled, HFValidationError) as error:
            raise _failure(error) from None
        except RuntimeError as error:  # of one file, among several that are sent at once
            if error.__cause__ is None:
                raise
            raise _failure(error.__cause__) from None
        except (ValueError, OSError) as error:  # a malformed answer; a certificate
            raise HubFailure(without(str(error), get_token()), 400) from None
        finally:
            set_client_factory(default_client_factory)
            constants.HF_HUB_DISABLE_XET = xet_off


def _impatient_client() -> httpx2.Client:
    client = default_client_factory()
    client.timeout = httpx2.Timeout(SILENCE, pool=None)
    return client


def _failure(error: BaseException) -> HubFailure:
    said = without(str(error), get_token())
    if isinstance(error, HfHubHTTPError):
        return HubFailure(said, error.response.status_code)
    if isinstance(error, HFValidationError):
        return HubFailure(said, 400)
    return HubFailure(said, timeout=isinstance(error, httpx2.TimeoutException))


def _repo(options: HubOptions) -> str:
    assert options.repo is not None  # without it nothing is pushed
    return options.repo

"""The Hugging Face hub, by huggingface_hub. The token is the library's own: HF_TOKEN, or `hf auth login`."""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from mengya.errors import UserError
from mengya.export.hub.files import PushedFile
from mengya.export.hub.options import HubOptions
from mengya.runtime.hub.huggingface import hugging_face_calls


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
        with hugging_face_calls(self.endpoint):
            try:
                self._api.create_repo(_repo(options), private=options.private)
            except HfHubHTTPError as error:
                if error.response.status_code != 409:
                    raise
                return False
        return True

    def existing(self, options: HubOptions) -> tuple[dict[str, int], bool]:
        """As `Hub.existing`."""
        with hugging_face_calls(self.endpoint):
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
        with hugging_face_calls(self.endpoint):
            if options.branch:
                self._api.create_branch(_repo(options), branch=options.branch, exist_ok=True)
            commit = self._api.create_commit(
                _repo(options), additions, commit_message=message, revision=options.branch
            )
        return str(commit.commit_url)


def _repo(options: HubOptions) -> str:
    assert options.repo is not None  # without it nothing is pushed
    return options.repo

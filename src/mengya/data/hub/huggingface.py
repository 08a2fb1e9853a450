"""Data sets on Hugging Face, or a mirror of it: HF_ENDPOINT, HF_TOKEN.

The library lists; the files come by ranged.py: its own download (2.4) keeps nothing when it is stopped.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers

from mengya.data.hub.corpus import HubKey
from mengya.data.hub.data_hub import RemoteFile, Snapshot
from mengya.runtime.hub.huggingface import hugging_face_calls


class HuggingFaceData:
    """A `DataHub` at HF_ENDPOINT."""

    key: HubKey = "huggingface"
    name = "Hugging Face"
    branch = "main"
    login = (
        "Make a token at https://huggingface.co/settings/tokens, then type: export HF_TOKEN=... (or: hf auth "
        "login)"
    )

    def __init__(self) -> None:
        self.endpoint = constants.ENDPOINT
        self._api = HfApi(endpoint=self.endpoint)

    def snapshot(self, repo: str, revision: str) -> Snapshot:
        """As `DataHub.snapshot`."""
        with hugging_face_calls(self.endpoint):
            info = self._api.dataset_info(repo, revision=revision)
            commit = info.sha or revision
            tree = self._api.list_repo_tree(
                repo, repo_type="dataset", recursive=True, revision=commit
            )
            files = tuple(
                RemoteFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None)
                for entry in tree
                if isinstance(entry, RepoFile)
            )
        card: Any = info.card_data
        license = card.get("license") if card is not None else None
        if isinstance(license, list):
            license = ", ".join(map(str, license))
        return Snapshot(repo, commit, files, license)

    def address(self, repo: str, commit: str, path: str) -> tuple[str, dict[str, str]]:
        """As `DataHub.address`."""
        url = f"{self.endpoint}/datasets/{repo}/resolve/{quote(commit, '')}/{quote(path)}"
        return url, dict(build_hf_headers(token=get_token() or False))

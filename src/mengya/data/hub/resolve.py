"""A name or reference, and a hub -> what to ask of which hub; where that is cached."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict
from pathlib import Path

from mengya.data.hub.corpus import Corpus, HubKey
from mengya.data.hub.data_hub import DataHub
from mengya.data.hub.download import Wanted
from mengya.data.hub.huggingface import HuggingFaceData
from mengya.data.hub.modelscope import ModelScopeData
from mengya.data.hub.reference import Reference
from mengya.data.hub.registry import find_corpus
from mengya.errors import UserError

CACHE = "MENGYA_CACHE"
HUB = "MENGYA_HUB"
_HUBS: dict[HubKey, type[HuggingFaceData] | type[ModelScopeData]] = {
    "huggingface": HuggingFaceData,
    "modelscope": ModelScopeData,
}
_COMMIT = re.compile(r"[0-9a-f]{40}")


def open_hub(key: HubKey) -> DataHub:
    return _HUBS[key]()


def resolve(
    reference: Reference, hub: HubKey | None, registry: Path | None
) -> tuple[Wanted, Corpus | None]:
    """What is asked for, and what the registry says of it.

    Raises:
        UserError: no data set has that name, or the hub that is named does not have it.
    """
    corpus = None if reference.is_repository else find_corpus(reference.name, registry)
    preferred = _from_environment()
    names: dict[HubKey, str] = corpus.hubs if corpus else dict.fromkeys(_HUBS, reference.name)
    if corpus is not None and not names:
        raise UserError(
            f"{reference.name} is on no hub: get it from {corpus.page}, then name its files as the source"
        )
    if hub is not None and hub not in names:
        raise UserError(
            f"{reference.name} is not on {hub} as far as the registry knows; write hub={next(iter(names))}, "
            "or name another copy as hub:OWNER/NAME"
        )
    first: HubKey = next(iter(names))
    key = hub or (preferred if preferred is not None and preferred in names else first)
    patterns = tuple(corpus.files) if corpus else ()
    others: list[HubKey] = [other for other in names if other != key and corpus is not None]
    wanted = Wanted(
        key,
        names[key],
        reference.revision or _HUBS[key].branch,
        (reference.files,) if reference.files else patterns,
        name=None if reference.is_repository else reference.name,
        license=corpus.license if corpus else None,
        elsewhere=next(iter(others), None),
        unpack=corpus is not None,
    )
    return wanted, corpus


def _from_environment() -> HubKey | None:
    value = os.environ.get(HUB)
    for key in _HUBS:
        if value == key:
            return key
    if value:
        raise UserError(f"{HUB}={value} must be one of {', '.join(_HUBS)}")
    return None


def is_pinned(wanted: Wanted, commit: str) -> bool:
    """Whether the hub always gives the same files for `commit`."""
    return wanted.hub == "huggingface" and _COMMIT.fullmatch(commit) is not None


def cache_folder(wanted: Wanted, commit: str) -> Path:
    """Where what is asked for is kept: below MENGYA_CACHE, or ~/.cache/mengya."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = Path(os.environ.get(CACHE) or Path(home, "mengya")).expanduser()
    request = json.dumps(wanted.request(commit), sort_keys=True)
    limits = [f"{key}-{n}" for key, n in asdict(wanted.limits).items() if n is not None]
    digest = hashlib.sha256(request.encode()).hexdigest()[:10]
    safe = re.sub(r"[^\w.-]", "_", commit)
    name = "-".join([*(limits or ["all"]), digest])
    return root / "data" / wanted.hub / wanted.repo.replace("/", "--") / safe / name

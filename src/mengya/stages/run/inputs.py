"""What a run reads by name: init_from, tokenizer and shards, pinned by content in inputs.json of run_dir.

A name can come to mean something else while the run exists: a link that moves, a folder that is replaced.
So links are followed once, at the start, and a resumed run is refused another content; the same content
may have moved elsewhere. In a run of an earlier version, which has no inputs.json, names are compared.

    {"init_from": {"path": "runs/x/checkpoints/step-000200", "sha256": "..."}, "data.train.0": {...}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from mengya.data.shards import TokenShards
from mengya.models.hf.checkpoint import checkpoint_sha256
from mengya.models.hf.open_checkpoint import find_checkpoint
from mengya.runtime.files import write_text
from mengya.tokenizer.load import tokenizer_hash
from mengya.training.run_config import RunConfig

FILE = "inputs.json"
C = TypeVar("C", bound=RunConfig)
_NAMES = ("init_from", "tokenizer")


@dataclass(frozen=True)
class Input:
    """One folder that a run reads: its path without links, and the SHA-256 of what the run takes from it."""

    path: str
    sha256: str


def resolved(config: C) -> C:
    """The settings with every link in their input paths followed; relative paths stay relative.

    Raises:
        UserError: init_from is neither a checkpoint nor a run folder that holds one.
    """
    data = config.data.model_copy(
        update={
            part: [s.model_copy(update={"path": _followed(s.path)}) for s in sources]
            for part, sources in (
                ("train", config.data.train),
                ("validation", config.data.validation),
            )
        }
    )
    folders = _folders(config)
    if start := folders.get("init_from"):
        folders["init_from"] = find_checkpoint(start)  # of a run folder: its best, else latest
    paths = {name: _followed(path) for name, path in folders.items()}
    return config.model_copy(update={"data": data, **paths})


def read_inputs(config: RunConfig) -> dict[str, Input]:
    """The inputs of resolved settings, by key; reads every byte of weights that the loss depends on.

    Raises:
        UserError: a folder is missing or is not what its key asks for.
    """
    inputs = {name: Input(str(path), "") for name, path in _folders(config).items()}
    if base := inputs.get("init_from"):
        digest = checkpoint_sha256(Path(base.path), weights=config.uses_base)
        inputs["init_from"] = Input(base.path, digest)
    if tokenizer := inputs.get("tokenizer"):
        inputs["tokenizer"] = Input(tokenizer.path, tokenizer_hash(tokenizer.path))
    for part in ("train", "validation"):
        for number, source in enumerate(getattr(config.data, part)):
            digest = _shards_sha256(source.path)
            inputs[f"data.{part}.{number}"] = Input(str(source.path), digest)
    return inputs


def load_inputs(run_dir: Path) -> dict[str, Input] | None:
    """inputs.json of a run; None where an earlier version started it."""
    try:
        values = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
        return {key: Input(str(v["path"]), str(v["sha256"])) for key, v in values.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def save_inputs(inputs: Mapping[str, Input], run_dir: Path) -> None:
    """Write inputs.json."""
    values = {key: asdict(value) for key, value in inputs.items()}
    write_text(run_dir / FILE, json.dumps(values, ensure_ascii=False, indent=2) + "\n")


def other_content(before: Mapping[str, Input], now: Mapping[str, Input]) -> Iterator[str]:
    """A sentence for every input that is not what the run started with, and how to have it again."""
    for key, started in before.items():
        found = now.get(key)
        if found is None or found.sha256 == started.sha256:
            continue  # a missing key is a changed setting, which is compared as such
        key = f"{key}.path" if key.startswith("data.") else key
        if found.path != started.path:
            remedy = f"write {key}={started.path}"
            if key.startswith("data."):
                remedy = f"name {started.path} again"
        else:
            remedy = "its content was replaced: restore it"
        yield (
            f"{key}: the run started with {started.path} (SHA-256 {started.sha256[:12]}), this is "
            f"{found.path} ({found.sha256[:12]}); {remedy}"
        )


def moved(config: RunConfig) -> Iterator[str]:
    """A sentence for every input that is not where the settings say, for a run that is to be resumed."""
    named = dict(_folders(config))
    for part in ("train", "validation"):
        sources = getattr(config.data, part)
        for number, source in enumerate(sources):
            key = f"data.{part}" if len(sources) == 1 else f"data.{part}.{number}.path"
            named[key] = source.path
    for key, path in named.items():
        if not path.exists():
            yield (
                f"{path} is not there any more; if it was moved or renamed, write {key}=PATH: a resumed run "
                "compares the content"
            )


def _folders(config: RunConfig) -> dict[str, Path]:
    return {name: path for name in _NAMES if (path := getattr(config, name, None)) is not None}


def _followed(path: Path) -> Path:
    real, here = path.resolve(), Path.cwd()
    inside = not path.is_absolute() and real.is_relative_to(here)
    return real.relative_to(here) if inside else real


def _shards_sha256(folder: Path) -> str:
    """Of what the manifest says of the documents: sizes and checksums of every part, the tokenizer."""
    manifest = TokenShards(folder).manifest
    said = {name: manifest.get(name) for name in ("kind", "dtype", "parts", "tokenizer")}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

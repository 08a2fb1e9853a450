"""`mengya data get NAME out=FOLDER`: the files of a public data set, or the first of its records."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from rich.console import Console

from mengya.config import Config, OneOrMany
from mengya.data.hub.corpus import Corpus, HubKey
from mengya.data.hub.download import Fetched, Wanted, asking, fetch
from mengya.data.hub.limited import Limits, Reading
from mengya.data.hub.reference import parse_reference
from mengya.data.hub.resolve import open_hub, resolve
from mengya.errors import UserError


class DataGetConfig(Config):
    name: str
    """NAME of `mengya data list`, or OWNER/NAME of a hub, with @REVISION and :FILES behind where wanted."""
    out: Path
    """Folder to write."""
    rows: int | None = Field(default=None, ge=1)
    """Only so many records, without downloading the rest; they become files .jsonl.zst."""
    bytes: int | None = Field(default=None, ge=1)
    """Only so many bytes of records, unpacked."""
    tokens: int | None = Field(default=None, ge=1)
    """Only so many tokens of `tokenizer`."""
    tokenizer: Path | None = None
    """The tokenizer folder that counts for `tokens`."""
    files: OneOrMany[str] = []
    """Names of the files wanted, with `*` (within a folder), `**` and `?`; else those of the registry."""
    revision: str | None = None
    """A branch, tag or commit; without it the newest."""
    hub: HubKey | None = None
    """Where from; without it MENGYA_HUB, else the first hub that has it."""
    registry: Path | None = None
    """A file of data sets besides those of `mengya data list`; its entries win."""
    overwrite: bool = False
    """Replace what an earlier `mengya data get` wrote to `out`."""

    @model_validator(mode="after")
    def _whose_tokens(self) -> DataGetConfig:
        if self.tokens is not None and self.tokenizer is None:
            raise ValueError("tokens are counted by a tokenizer; write tokenizer=PATH as well")
        if self.tokenizer is not None and self.tokens is None:
            raise ValueError(
                "a tokenizer is for a limit in tokens; write tokens=NUMBER or leave it out"
            )
        return self


def run(config: DataGetConfig) -> Fetched:
    """Download, or say that it is there.

    Raises:
        UserError: there is no such data set, it cannot be had, or `out` holds something else.
    """
    console = Console(stderr=True)
    reference = parse_reference(config.name)
    if config.revision is not None and reference.revision not in (None, config.revision):
        raise UserError(
            f"{config.name} and revision={config.revision} name two revisions; leave one out"
        )
    wanted, corpus = resolve(reference, config.hub, config.registry)
    wanted = replace(wanted, **_given(config, corpus))
    hub = open_hub(wanted.hub)
    with asking(hub, wanted):
        snapshot = hub.snapshot(wanted.repo, wanted.revision)
    fetched = fetch(hub, wanted, snapshot, config.out, config.overwrite, console)
    _say_what(config, wanted, corpus, fetched, console)
    return fetched


def _given(config: DataGetConfig, corpus: Corpus | None) -> dict[str, Any]:
    """What of `Wanted` the configuration says."""
    given: dict[str, Any] = {}
    if config.files:
        given["files"] = tuple(config.files)
    if config.revision is not None:
        given["revision"] = config.revision
    limits = Limits(config.rows, config.bytes, config.tokens)
    if limits:
        counter = None
        if config.tokenizer is not None:  # transformers takes seconds to import
            from mengya.data.hub.tokens import token_counter
            from mengya.tokenizer.load import tokenizer_hash

            field = (corpus.field or "text") if corpus and corpus.kind == "text" else None
            counter = token_counter(config.tokenizer, field)
            given["tokenizer"] = tokenizer_hash(config.tokenizer)
        reading = Reading(count_tokens=counter)
        if corpus is not None:
            reading = Reading(corpus.encoding, corpus.split_text, counter)
        given |= {"limits": limits, "reading": reading}
    return given


def _say_what(
    config: DataGetConfig, wanted: Wanted, corpus: Corpus | None, got: Fetched, console: Console
) -> None:
    size = sum(file["bytes"] for file in got.record["files"])
    license = got.record["license"] or "none stated"
    revision = got.record["request"]["revision"]
    lines = [
        f"{config.out}: {len(got.files)} files, {size / 1e6:,.1f} MB of {wanted.repo} on {wanted.hub}",
        f"revision: {revision}",
        f"license: {license}",
    ]
    if corpus is not None:
        lines += [f"note: {fault}" for fault in corpus.faults]
    if corpus is not None and corpus.kind == "exam":
        lines.append(f"next: mengya evaluate CHECKPOINT exams={shlex.quote(str(config.out))}")
    elif corpus is not None:
        kind = "" if corpus.kind == "text" else f"kind={corpus.kind} "
        source = shlex.quote(source_text(corpus, str(config.out)))
        lines.append(f"next: mengya prepare {kind}tokenizer=FOLDER out=FOLDER sources={source}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def source_text(corpus: Corpus, path: str) -> str:
    """A source of `prepare` for files of a data set that lie at `path`, as it is typed."""
    keys = ("format", "field", "columns", "encoding", "split_text")
    known = {key: getattr(corpus, key) for key in keys if key in corpus.model_fields_set}
    if not known:
        return path
    inner = ", ".join(f"{key}: {_yaml(value)}" for key, value in {"path": path, **known}.items())
    return f"{{{inner}}}"


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    text = str(value)
    return f'"{text}"' if any(c in text for c in "[]{},#:") else text

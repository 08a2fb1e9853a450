"""Sources hub:NAME -> sources of local files, downloaded into the cache where they are not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import Console

from mengya.data.hub.corpus import Corpus
from mengya.data.hub.download import Fetched, Wanted, asking, fetch, read_record
from mengya.data.hub.limited import Limits, Reading
from mengya.data.hub.reference import is_hub, parse_reference
from mengya.data.hub.resolve import cache_folder, is_pinned, open_hub, resolve
from mengya.data.ingest.reading.encoding import AUTO
from mengya.data.ingest.reading.files import file_kind
from mengya.data.prepare.config import PrepareConfig, PrepareSource
from mengya.data.prepare.request.inputs import SavedRequest
from mengya.errors import UserError
from mengya.tokenizer.load import tokenizer_hash


def with_local_files(
    config: PrepareConfig, saved: SavedRequest | None, console: Console
) -> PrepareConfig:
    """The configuration with files in place of data sets.

    Args:
        saved: of what OUT holds: the same sources are taken at the same revisions, whatever is newer.

    Raises:
        UserError: a data set is not known, holds something else than `config.kind`, or cannot be had.
    """
    if not any(is_hub(_path(source)) for source in config.sources):
        return config
    sources = [
        _local(config, source, saved, console) if is_hub(_path(source)) else source
        for source in config.sources
    ]
    return config.model_copy(update={"sources": sources})


def _path(source: PrepareSource) -> str:
    return source.path if isinstance(source.path, str) else source.path[0]


def _local(
    config: PrepareConfig, source: PrepareSource, saved: SavedRequest | None, console: Console
) -> PrepareSource:
    reference = parse_reference(_path(source))
    wanted, corpus = resolve(reference, source.hub, config.registry)
    known = _known(source, corpus)
    if corpus is not None:
        _check_kind(config, reference.name, corpus)
    merged = source.model_copy(update=known)
    wanted = replace(wanted, **_limits(config, merged))
    fetched = _in_cache(wanted, _saved_commit(saved, wanted), console)
    files = [str(path) for path in fetched.files if file_kind(path) is not None]
    if not files:
        raise UserError(
            f"{reference.name} has no file that `prepare` reads: type mengya data get {reference.name} "
            "out=FOLDER, unpack what it holds, and name that folder as the source"
        )
    request = fetched.record["request"]
    origin = {
        "hub": wanted.hub,
        "id": wanted.repo,
        "asked": wanted.revision,
        "revision": request["revision"],
        "files": [file.get("from", file["path"]) for file in fetched.record["files"]],
    }
    if wanted.limits:  # what was there became lines of JSON in UTF-8
        known |= {"encoding": AUTO, "split_text": "file"}
    name = source.name or wanted.name or wanted.repo
    license = source.license or fetched.record["license"]
    return source.fetched(origin, **known, path=files, name=name, license=license)


def _known(source: PrepareSource, corpus: Corpus | None) -> dict[str, Any]:
    """What the registry says of how the records are to be read, where the user does not."""
    if corpus is None:
        return {}
    values = {
        key: getattr(corpus, key)
        for key in ("format", "field", "columns", "encoding", "split_text")
        if key in corpus.model_fields_set and key not in source.model_fields_set
    }
    return {key: value for key, value in values.items() if value is not None}


def _check_kind(config: PrepareConfig, name: str, corpus: Corpus) -> None:
    if corpus.kind == "exam":
        raise UserError(
            f"{name} is an exam, which is measured and not trained on: type mengya data get {name} "
            "out=FOLDER, then give that folder to `mengya evaluate` as exams=FOLDER"
        )
    if corpus.kind != config.kind:
        raise UserError(
            f"{name} holds samples of the kind {corpus.kind}; write kind={corpus.kind}, or choose another "
            f"one from mengya data list kind={config.kind}"
        )


def _limits(config: PrepareConfig, source: PrepareSource) -> dict[str, Any]:
    limits = Limits(source.limit, source.limit_bytes, source.limit_tokens)
    if not limits:
        return {}
    counter = None
    if limits.tokens is not None:
        from mengya.data.hub.tokens import token_counter

        counter = token_counter(config.tokenizer, source.field if config.kind == "text" else None)
    return {
        "limits": limits,
        "reading": Reading(source.encoding, source.split_text, counter),
        "tokenizer": tokenizer_hash(config.tokenizer) if counter else None,
    }


def _saved_commit(saved: SavedRequest | None, wanted: Wanted) -> str | None:
    """The revision that OUT was made of; that of the reference where it is a commit."""
    if is_pinned(wanted, wanted.revision):
        return wanted.revision
    sources = saved.request["sources"] if saved is not None else []
    for source in sources:
        origin = source.get("hub") or {}
        if all(
            origin.get(key) == value
            for key, value in (
                ("hub", wanted.hub),
                ("id", wanted.repo),
                ("asked", wanted.revision),
            )
        ):
            return origin["revision"]
    return None


def _in_cache(wanted: Wanted, commit: str | None, console: Console) -> Fetched:
    """The files, downloaded where the cache does not have them; the hub is not asked where it does."""
    if commit is not None and (there := read_record(cache_folder(wanted, commit))):
        return there
    hub = open_hub(wanted.hub)
    with asking(hub, wanted):
        snapshot = hub.snapshot(wanted.repo, commit or wanted.revision)
    folder = cache_folder(wanted, snapshot.commit)
    if there := read_record(folder):
        return there
    _say(console, f"downloading {wanted.repo} from {hub.endpoint} into {folder}")
    return fetch(hub, wanted, snapshot, folder, overwrite=True, console=console)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)

"""`mengya data show NAME`: all that the registry says of a public data set, and the commands for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.text import Text

from mengya.config import Config
from mengya.data.hub.corpus import Corpus, Fact
from mengya.data.hub.data_hub import is_table
from mengya.data.hub.registry import find_corpus


class DataShowConfig(Config):
    name: str
    """NAME of `mengya data list`."""
    registry: Path | None = None
    """A file of data sets besides those of `mengya data list`; its entries win."""


def run(config: DataShowConfig) -> Corpus:
    """Print it.

    Raises:
        UserError: there is no data set of that name, or a registry is not valid.
    """
    corpus = find_corpus(config.name.removeprefix("hub:"), config.registry)
    console = Console(highlight=False)
    for key, value in _lines(config.name.removeprefix("hub:"), corpus):
        line = Text(f"{key:<14}", style="cyan")
        console.print(line + Text(value), soft_wrap=not console.is_terminal)
    return corpus


def _lines(name: str, corpus: Corpus) -> Iterator[tuple[str, str]]:
    yield "name", name
    yield "kind", corpus.kind
    yield "about", corpus.about
    yield from corpus.hubs.items()
    if corpus.page:
        yield "page", corpus.page
    yield "license", corpus.license or "none stated on its page, or not found"
    if corpus.gated is not None:
        yield "gated", "its owner asks for a login" if corpus.gated else "no"
    yield "size", corpus.size or "not known"
    if corpus.files:
        yield "files", ", ".join(corpus.files)
    for key in ("format", "field", "columns", "encoding", "split_text"):
        if key in corpus.model_fields_set:
            yield key, str(getattr(corpus, key))
    for fault in corpus.faults:
        yield "fault", fault
    if corpus.looked_at:
        yield "looked at", str(corpus.looked_at)
    unseen = [fact for fact in get_args(Fact) if fact not in corpus.verified]
    unseen = [fact for fact in unseen if getattr(corpus, fact, True) not in (None, [])]
    if unseen:
        yield "not verified", ", ".join(unseen)
    tables = all(map(is_table, corpus.files)) or not corpus.files
    if corpus.hubs:
        limit = " rows=10000" if tables and corpus.kind != "exam" else ""
        yield "get", f"mengya data get {name} out=data/{name}{limit}"
    if corpus.hubs and corpus.kind != "exam" and tables:
        kind = "" if corpus.kind == "text" else f"kind={corpus.kind} "
        yield "use", f"mengya prepare {kind}tokenizer=FOLDER out=FOLDER sources=hub:{name}"

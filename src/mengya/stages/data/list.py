"""`mengya data list`: the public data sets that are known by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mengya.config import Config
from mengya.data.hub.corpus import Corpus
from mengya.data.hub.registry import load_registry
from mengya.errors import UserError


class DataListConfig(Config):
    kind: Literal["text", "conversation", "preference", "exam"] | None = None
    """Only those of this kind."""
    search: str | None = None
    """Only those with this text in their name, description, license or name on a hub."""
    registry: Path | None = None
    """A file of data sets besides those of this list; its entries win."""


def run(config: DataListConfig) -> dict[str, Corpus]:
    """Print a table.

    Raises:
        UserError: there is nothing to show, or a registry is not valid.
    """
    known = load_registry(config.registry)
    found = {name: corpus for name, corpus in known.items() if _fits(config, name, corpus)}
    if not found:
        raise UserError(
            f"none of {len(known)} data sets fits kind={config.kind} search={config.search!r}; leave one out"
        )
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("name", "kind", "size", "license", "hubs"):
        table.add_column(column, overflow="fold", no_wrap=column != "license")
    for name, corpus in found.items():
        hubs = " ".join({"huggingface": "HF", "modelscope": "MS"}[hub] for hub in corpus.hubs)
        table.add_row(name, corpus.kind, corpus.size or "-", corpus.license or "-", hubs or "-")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "HF: Hugging Face, MS: ModelScope; - : not stated, or not found. `mengya data show NAME` says more."
    )
    return found


def _fits(config: DataListConfig, name: str, corpus: Corpus) -> bool:
    texts = (name, corpus.about, corpus.license or "", *corpus.hubs.values())
    wanted = (config.search or "").lower()
    return config.kind in (None, corpus.kind) and any(wanted in text.lower() for text in texts)

"""Which files are documents by their names, and whether the libraries that read them are installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TypeGuard

DOCUMENTS = {
    ".pdf": "pdf", ".docx": "docx", ".epub": "epub",
    ".html": "html", ".htm": "html", ".xhtml": "html",
}  # fmt: skip
EXTRA = "documents"
_MODULES = {"pdf": "pypdfium2", "docx": "docx", "epub": "lxml", "html": "trafilatura"}


def is_document(kind: str | None) -> TypeGuard[str]:
    """Whether a kind of file is one of documents."""
    return kind in _MODULES


def module_of(kind: str) -> str:
    """The module that reads a kind of document."""
    return _MODULES[kind]


def is_installed(kind: str) -> bool:
    """Whether a kind of document can be read here."""
    return find_spec(_MODULES[kind]) is not None

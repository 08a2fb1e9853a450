"""EPUB books -> text: the chapters in the order of the book's spine, all of their text."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from lxml import etree, html  # pyright: ignore[reportAttributeAccessIssue]

from mengya.data.ingest.reading.documents.archive import open_archive
from mengya.data.ingest.reading.documents.extract import DocumentError, Extracted

_BLOCKS = (
    "p",
    "div",
    "br",
    "li",
    "tr",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "blockquote",
    "pre",
    "hr",
)
_HIDDEN = ("script", "style", "head", "nav")
_FAILURES = (KeyError, etree.LxmlError, zipfile.BadZipFile, ValueError, NotImplementedError)


def extract(content: bytes) -> Extracted:
    """A chapter that is damaged or missing is a bad page, numbered by its place in the book."""
    with open_archive(content) as archive:
        try:
            chapters = list(_spine(archive))
        except (*_FAILURES, IndexError) as error:
            raise DocumentError(f"no EPUB: {type(error).__name__} {error}") from None
        texts, bad = [], []
        for number, name in enumerate(chapters, 1):
            try:
                texts.append(_chapter(archive.read(name)))
            except _FAILURES as error:
                bad.append((number, f"chapter {name} cannot be read: {error}"))
    return Extracted("\n\n".join(filter(None, texts)), bad)


def _spine(archive: zipfile.ZipFile) -> Iterator[str]:
    """Names of the chapters' files, each once: a spine that repeats a chapter would make any book endless."""
    container = _xml(archive.read("META-INF/container.xml"))
    package_file = _all(container, "rootfile")[0].get("full-path")
    package = _xml(archive.read(package_file))
    files = {item.get("id"): item.get("href") for item in _all(package, "item")}
    references = (reference.get("idref") for reference in _all(package, "itemref"))
    for reference in dict.fromkeys(references):
        href = files[reference]
        yield posixpath.normpath(posixpath.join(posixpath.dirname(package_file), unquote(href)))


def _chapter(content: bytes) -> str:
    """A line for each block."""
    root = html.document_fromstring(content, parser=html.HTMLParser(encoding="utf-8"))
    for element in list(root.iter(*_HIDDEN)):
        element.drop_tree()
    for element in root.iter(*_BLOCKS):
        element.tail = "\n" + (element.tail or "")
    lines = (" ".join(line.split()) for line in root.text_content().split("\n"))
    return "\n".join(filter(None, lines))


def _xml(content: bytes) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    return etree.fromstring(content, parser)


def _all(root: Any, name: str) -> list[Any]:
    return list(root.iter(f"{{*}}{name}"))

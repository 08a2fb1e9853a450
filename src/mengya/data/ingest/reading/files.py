"""A path, a folder or a glob -> the data files there, what kind each is by its name, and what is left out."""

from __future__ import annotations

import difflib
import glob
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from mengya.data.ingest.reading.documents.kinds import (
    DOCUMENTS,
    EXTRA,
    is_document,
    is_installed,
    module_of,
)
from mengya.errors import UserError
from mengya.runtime.optional import install_command
from mengya.runtime.output_folder import MARKER
from mengya.runtime.unicode import is_unicode

STRUCTURED = {
    ".jsonl": "lines", ".ndjson": "lines", ".json": "json", ".parquet": "parquet",
    ".csv": "csv", ".tsv": "csv",
}  # fmt: skip
TEXT = {".txt": "text", ".md": "text"}
_MAKERS, _MADE = (
    ("synth", "identity"),
    "conversations.jsonl",
)  # verbs, and their file that is learned
_NEVER_PACKED = {"parquet", *DOCUMENTS.values()}
_ABOUT = ("readme", "license", "licence", "notice", "changelog", "citation", "contributing")


@dataclass(frozen=True)
class FoundFiles:
    """What a path, folder or glob names.

    Attributes:
        files: to read, sorted by name.
        left_out: how many others there are, by what they are: ".docx", "README.md".
    """

    files: list[Path]
    left_out: Counter[str] = field(default_factory=Counter)


def file_kind(path: Path) -> str | None:
    """lines, json, parquet, csv, text or a kind of document (pdf, docx, epub, html) by the file's name,
    compression aside; None when unknown."""
    suffixes = [s.lower() for s in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in (".gz", ".zst")
    if packed:
        suffixes.pop()
    kind = (STRUCTURED | TEXT | DOCUMENTS).get(suffixes[-1]) if suffixes else None
    return None if packed and kind in _NEVER_PACKED else kind


_TO_READ = "; to read documents "


def find_files(pattern: str) -> list[Path]:
    """The files that `find_data` gives for texts."""
    return find_data(pattern).files


def find_data(pattern: str, *, texts: bool = True) -> FoundFiles:
    """The data files of a path, a folder (with its folders, also linked ones) or a glob.

    Next to JSONL, JSON, parquet or CSV in a folder, a README or LICENSE is not taken for data, nor are
    documents (PDF, Word, EPUB, HTML), nor these where their library is not installed. Shards and tokenizers
    that lie below the named folder, or that wildcards find, are not read.

    Args:
        texts: whether documents, and .txt and .md files next to such files, are wanted.

    Raises:
        UserError: nothing is there, or the kind of a named file is unknown or cannot be read here.
    """
    path = Path(pattern)
    if path.is_file():
        if file_kind(path) is None:
            known, documents = " ".join(STRUCTURED | TEXT), " ".join(DOCUMENTS)
            raise UserError(
                f"{path}: unknown kind of file; known are {known}, each but .parquet also .gz or .zst, "
                f"and {documents}"
            )
        _check_installed(path)
        _check_names([path])
        return FoundFiles([path])
    if path.is_fifo():
        raise UserError(
            f"{path} is a pipe, and data are read more than once: write it to a file first, as "
            f"`cat {path} > data.jsonl`"
        )
    left_out: Counter[str] = Counter()
    found = list(_below(path, left_out)) if path.is_dir() else list(_matching(pattern, left_out))
    kept_back = [p for p in found if _is_kept_back(p)]
    left_out.update(p.name for p in kept_back)
    found = [p for p in found if p not in set(kept_back)]
    kinds = {p: file_kind(p) for p in sorted(found)}
    files = [p for p, kind in kinds.items() if kind is not None]
    structured = any(kind in STRUCTURED.values() for kind in kinds.values())
    others = {
        p: reason for p in files if (reason := _not_read(p, path.is_dir(), structured, texts))
    }
    left_out.update(others.values())
    files = [p for p in files if p not in others]
    hidden = {p for p in found if any(part.startswith(".") for part in _parts(p, path))}
    left_out.update(_suffix(p) for p, kind in kinds.items() if kind is None and p not in hidden)
    if not files:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near and near[0] != path.name else ""
        if pattern.startswith("hub:"):
            hint = f"; only `prepare` reads it by name: type mengya data get {pattern} out=FOLDER first"
        others = f", only {shown_counts(left_out)}" if left_out else ""
        is_missing = not glob.has_magic(pattern) and not path.exists()
        problem = "does not exist" if is_missing else "no data files found"
        raise UserError(f"{pattern}: {problem}{others}{hint}")
    _check_names(files)
    return FoundFiles(files, left_out)


def _not_read(path: Path, in_folder: bool, structured: bool, texts: bool) -> str | None:
    """Under which name a found file is left out, if it is.

    Args:
        in_folder: it was not found by a glob of its own.
        structured: JSONL, JSON, parquet or CSV lie in the same folder.
    """
    kind = file_kind(path)
    if is_document(kind):
        if not texts or structured:
            return _suffix(path)
        return None if is_installed(kind) else f"{_suffix(path)}{_TO_READ}{install_command(EXTRA)}"
    if kind == "text" and in_folder and structured and (not texts or _is_about(path)):
        return path.name if _is_about(path) else _suffix(path)
    return None


def _check_installed(path: Path) -> None:
    kind = file_kind(path)
    if is_document(kind) and not is_installed(kind):
        raise UserError(f"{path} is read by {module_of(kind)}; {install_command(EXTRA)}")


def _check_names(files: Iterable[Path]) -> None:
    """Manifests, which are JSON in UTF-8, name every file."""
    for file in files:
        if not is_unicode(str(file)):
            raise UserError(f"{str(file)!r}: the name of a file must be UTF-8; rename it")


def shown_counts(left_out: Counter[str]) -> str:
    """ "12 .docx, 3 .pdf, README.md", the most first; at the end what to do to have them read."""
    remedies = sorted({name.partition(_TO_READ)[2] for name in left_out} - {""})
    named = [(name.partition(_TO_READ)[0], count) for name, count in left_out.items()]
    many = sorted(named, key=lambda item: (-item[1], item[0]))
    shown = [name if count == 1 and name[0] != "." else f"{count} {name}" for name, count in many]
    more = f" and {len(shown) - 10} other kinds" if len(shown) > 10 else ""
    return "".join([", ".join(shown[:10]), more, *(f"{_TO_READ}{one}" for one in remedies)])


def _below(folder: Path, left_out: Counter[str]) -> Iterator[Path]:
    """The files below `folder` that are not hidden, each real folder once, linked folders last."""
    seen, waiting = set[str](), [folder]
    while waiting:
        linked: list[Path] = []
        for top in waiting:
            for at, folders, files in os.walk(top):
                place = os.path.realpath(at)
                ours = MARKER in files and Path(at) != folder and _is_ours(Path(at))
                if place in seen or ours:
                    if ours:
                        left_out[f"folder {at} of mengya's own files"] += 1
                    folders.clear()
                    continue
                seen.add(place)
                linked += [Path(at, name) for name in folders if Path(at, name).is_symlink()]
                names = [name for name in files if not name.startswith(".")]
                yield from (Path(at, name) for name in names if Path(at, name).is_file())
        waiting = sorted(linked)


def _matching(pattern: str, left_out: Counter[str]) -> Iterator[Path]:
    """The files that a glob names, by the rules of a folder: each once though links lead to its folder
    too, and none in a folder of mengya's own that the wildcards found."""
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    found = [Path(p) for p in glob.glob(pattern, recursive=True) if Path(p).is_file()]  # noqa: PTH207
    ours, seen = dict[Path, bool](), set[Path]()
    # Paths without a link come first: of several to one folder they are the ones to show.
    for path in sorted(
        found, key=lambda path: (path.parent.absolute() != path.parent.resolve(), path)
    ):
        above = [
            folder for folder in path.parents if folder != fixed and folder.is_relative_to(fixed)
        ]
        for folder in above:
            if folder not in ours:
                ours[folder] = (folder / MARKER).is_file() and _is_ours(folder)
                if ours[folder]:
                    left_out[f"folder {folder} of mengya's own files"] += 1
        real = path.parent.resolve() / path.name
        if real not in seen and not any(ours[folder] for folder in above):
            seen.add(real)
            yield path


def _is_ours(folder: Path) -> bool:
    """Whether `mengya prepare` or `mengya tokenizer` wrote it, which puts nothing else there."""
    return _writer(folder) in ("prepare", "tokenizer")


def _is_kept_back(path: Path) -> bool:
    """Whether it lies next to made conversations: those held out, questions of the test, the report."""
    return path.name != _MADE and _writer(path.parent) in _MAKERS


def _writer(folder: Path) -> str | None:
    """The verb that wrote the folder."""
    try:
        return str(json.loads((folder / MARKER).read_text("utf-8"))["verb"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _parts(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts if path.is_relative_to(folder) else path.parts[-1:]


def _is_about(path: Path) -> bool:
    return path.name.lower().startswith(_ABOUT)


def _suffix(path: Path) -> str:
    suffixes = [s.lower() for s in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        return "".join(suffixes)
    return suffixes[-1] if suffixes else "without a suffix"

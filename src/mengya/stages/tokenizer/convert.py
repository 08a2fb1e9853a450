"""`mengya tokenizer convert FILE out=FOLDER`: SentencePiece or tiktoken vocabularies as folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pydantic import Field
from rich.console import Console
from rich.progress import track

from mengya.config import Config, OneOrMany
from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import TextSource, read_texts
from mengya.errors import UserError
from mengya.runtime.files import write_text
from mengya.runtime.output_folder import FolderKind, new_folder
from mengya.tokenizer.load import TOKENIZER_FILES, save_tokenizer, tokenizer_hash
from mengya.tokenizer.sentencepiece_model import MODEL_FILE
from mengya.tokenizer.tiktoken_ranks import Split
from mengya.tokenizer.vocabulary_file import (
    PROBES,
    VocabularyFile,
    prove,
    read_vocabulary_file,
    with_added,
)

CONVERSION_FILE = "conversion.json"  # in the folder: of what it was made, and on what it was proved
FOLDER = FolderKind("tokenizer convert", (*TOKENIZER_FILES, CONVERSION_FILE))


class TokenizerConvertConfig(Config):
    file: Path
    """A SentencePiece model (tokenizer.model) or a file in tiktoken's format (qwen.tiktoken)."""
    out: Path
    """Folder to write: tokenizer.json, tokenizer_config.json, chat_template.jinja."""
    split: Split | None = None
    """For tiktoken's format: the rule that splits text into words; of the usual files it is known."""
    add: Path | None = None
    """A SentencePiece model whose pieces, such as Chinese ones, come after those of `file`."""
    texts: OneOrMany[TextSource] = []
    """Text on which the ids are compared with those of the file's own library, besides a few hard cases."""
    max_characters: int = Field(default=10_000_000, ge=1)
    """Compare no more than this."""
    max_bad_lines: int = Field(default=100, ge=0)
    """Unreadable lines to skip before giving up."""
    overwrite: bool = False
    """Replace a folder that an earlier run of this verb wrote to `out`."""


def run(config: TokenizerConvertConfig) -> None:
    """Convert, after every id has been compared.

    Raises:
        UserError: the file is of another kind or damaged, or its ids cannot be had.
    """
    if config.add is not None and config.split is not None:
        raise UserError("add joins two SentencePiece models, which need no split; leave out split")
    sources = [source.path for source in config.texts]
    with new_folder(
        config.out, FOLDER, overwrite=config.overwrite, sources=sources, inputs=[config.file]
    ) as folder:
        said = _write(config, folder, Console(stderr=True))
    Console(stderr=True).print(
        f"{said} in {config.out} (sha256 {tokenizer_hash(config.out)[:12]})",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _write(config: TokenizerConvertConfig, folder: Path, console: Console) -> str:
    """Write the folder; one line that says what is in it."""
    added = ""
    with console.status(f"reading {config.file} ..."):
        if config.add is None:
            vocabulary = read_vocabulary_file(config.file, config.split)
            data = config.file.read_bytes()
        else:
            vocabulary, data, written = with_added(config.file, config.add)
            added = f", {written:,} pieces of {config.add} among them that text can become"
    proof = prove(vocabulary, _texts(config, console))
    save_tokenizer(vocabulary.tokenizer, folder)
    if vocabulary.kind != "tiktoken":
        (folder / MODEL_FILE).write_bytes(data)
    facts = {
        "file": str(config.file),
        "sha256": hashlib.sha256(data).hexdigest(),
        "kind": vocabulary.kind,
        "equal_ids": asdict(proof),
    }
    write_text(folder / CONVERSION_FILE, json.dumps(facts, ensure_ascii=False, indent=2) + "\n")
    library = vocabulary.kind.split()[0]
    rounding = (
        f"; in {proof.rounding:,} of them two splits are equally probable, and 32-bit rounding of "
        f"{library} chooses the other"
        if proof.rounding
        else ""
    )
    return (
        f"{_size(vocabulary)}{added}: ids equal to those of {library} on {proof.texts:,} texts of "
        f"{proof.characters:,} characters{rounding};"
    )


def _size(vocabulary: VocabularyFile) -> str:
    own = sum(1 for _ in vocabulary.tokenizer.get_vocab())
    return f"{own:,} tokens ({vocabulary.kind})"


def _texts(config: TokenizerConvertConfig, console: Console) -> Iterator[str]:
    yield from PROBES
    left = config.max_characters
    texts = read_texts(config.texts, BadLines(config.max_bad_lines)) if config.texts else iter(())
    for text in track(texts, "comparing ids", console=console, transient=True):
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return

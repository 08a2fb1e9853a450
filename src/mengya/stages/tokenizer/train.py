"""`mengya tokenizer`: train a tokenizer (byte-level BPE, SentencePiece) and report how it fits the text."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformers import PreTrainedTokenizerFast

from mengya.config import Config, OneOrMany, save_config
from mengya.data.ingest.reading.files import find_files
from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import TextSource, read_texts
from mengya.errors import UserError
from mengya.runtime.files import write_text
from mengya.runtime.optional import require
from mengya.runtime.output_folder import FolderKind, new_folder
from mengya.stages.tokenizer.names import short_names
from mengya.tokenizer.load import TOKENIZER_FILES, load_tokenizer, save_tokenizer, tokenizer_hash
from mengya.tokenizer.report import TokenizerReport, report
from mengya.tokenizer.sentencepiece_model import MODEL_FILE
from mengya.tokenizer.sentencepiece_train import SentencePieceConfig, train_sentencepiece
from mengya.tokenizer.train import MAX_TOKEN_CHARACTERS, sample_pieces, train_tokenizer
from mengya.tokenizer.vocabulary_file import sentencepiece_tokenizer

REPORT_FILE = "tokenizer_report.json"
REPORT_SHARE = 50  # one document in so many is kept out of training, for the report
REPORT_CHARACTERS = 2_000_000
FOLDER = FolderKind(
    "tokenizer",
    (*TOKENIZER_FILES, "tokenizer_run.yaml", REPORT_FILE),
    unmarked=lambda folder: (folder / REPORT_FILE).is_file(),
)


class TokenizerConfig(Config):
    out: Path
    """Folder to write: tokenizer.json, tokenizer_config.json, chat_template.jinja."""
    sources: OneOrMany[TextSource] = Field(min_length=1)
    """Text to train on; a plain path stands for {path: ...}."""
    model: Literal["bpe", "sentencepiece_bpe", "sentencepiece_unigram"] = "bpe"
    """bpe: byte-level BPE, every text exactly, and what llama.cpp and all programs read. The others:
    SentencePiece's BPE and unigram, trained by its library; the folder has its tokenizer.model too."""
    vocab_size: int = Field(default=6400, ge=272)
    """Tokens, with 256 bytes and 16 special ones among them."""
    sentencepiece: SentencePieceConfig = SentencePieceConfig()
    max_characters: int = Field(default=10_000_000, ge=1)
    """Longer text is sampled down to this, evenly and repeatably; each takes 170 bytes of memory."""
    max_token_characters: int | None = Field(default=MAX_TOKEN_CHARACTERS, ge=2)
    """The longest token in Chinese characters (three bytes each: a letter is a third); null for no limit."""
    max_bad_lines: int = Field(default=100, ge=0)
    """Unreadable lines to skip before giving up."""
    compare: OneOrMany[Path] = []
    """Other tokenizer folders to compare with in the report."""
    overwrite: bool = False
    """Replace a tokenizer in `out`; shards and models made with the old one will not fit the new one."""

    @model_validator(mode="after")
    def _whose_settings(self) -> TokenizerConfig:
        if self.model == "bpe" and self.sentencepiece != SentencePieceConfig():
            raise ValueError(
                "sentencepiece.* is for model=sentencepiece_bpe or model=sentencepiece_unigram; write one "
                "of them, or leave those keys out"
            )
        return self


def run(config: TokenizerConfig) -> None:
    with new_folder(
        config.out,
        FOLDER,
        overwrite=config.overwrite,
        sources=[source.path for source in config.sources],
        inputs=config.compare,
    ) as folder:
        tokens = _write(config, folder)
    Console(stderr=True).print(
        f"{tokens} tokens in {config.out} (sha256 {tokenizer_hash(config.out)[:12]})",
        highlight=False,
    )


def _write(config: TokenizerConfig, folder: Path) -> int:
    """Train the tokenizer and write it and its report into `folder`; the number of its tokens."""
    console = Console(stderr=True)
    others = {str(path): load_tokenizer(path) for path in config.compare}
    bad_lines = BadLines(config.max_bad_lines)
    for_report: list[str] = []
    tokenizer = _train(
        config, _training_texts(config, bad_lines, for_report, console), folder, console
    )
    save_tokenizer(tokenizer, folder)
    save_config(config, folder / "tokenizer_run.yaml")
    if bad_lines.count:
        first = bad_lines.first[0]
        console.print(
            f"{bad_lines.count} unreadable lines skipped, the first "
            f"{first.file}:{first.line}: {first.reason}",
            markup=False,
            soft_wrap=True,
        )
    reports = {str(config.out): report(tokenizer, for_report)} if for_report else {}
    reports |= {name: report(other, for_report) for name, other in others.items() if for_report}
    write_text(
        folder / REPORT_FILE,
        json.dumps({name: asdict(r) for name, r in reports.items()}, indent=2, ensure_ascii=False),
    )
    if reports:
        Console().print(_table(reports))
    return len(tokenizer)


def _train(
    config: TokenizerConfig, texts: Iterator[str], folder: Path, console: Console
) -> PreTrainedTokenizerFast:
    """The tokenizer; of SentencePiece its own file is written as well."""
    if config.model == "bpe":
        return train_tokenizer(
            texts,
            config.vocab_size,
            max_characters=config.max_characters,
            max_token_characters=config.max_token_characters,
            show_progress=sys.stderr.isatty(),
        )
    require("sentencepiece", "sentencepiece")  # before the text is read
    require("google.protobuf", "sentencepiece")
    kind: Literal["bpe", "unigram"] = "bpe" if config.model == "sentencepiece_bpe" else "unigram"
    texts = iter(sample_pieces(texts, config.max_characters))
    with console.status(f"training SentencePiece's {kind} ..."):
        data = train_sentencepiece(
            texts,
            kind,
            config.vocab_size,
            config.sentencepiece,
            max_characters=config.max_characters,
            max_token_characters=config.max_token_characters,
        )
    (folder / MODEL_FILE).write_bytes(data)
    return sentencepiece_tokenizer(data, config.model)


def _training_texts(
    config: TokenizerConfig, bad_lines: BadLines, for_report: list[str], console: Console
) -> Iterator[str]:
    """Every text to train on; those kept for the report go to `for_report`."""
    files = [path for source in config.sources for path in find_files(source.path)]
    sizes = [path.stat().st_size for path in files]
    room = REPORT_CHARACTERS
    first: str | None = None
    columns = (TextColumn("reading"), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=sum(sizes))
        before = dict(zip(files, accumulate(sizes, initial=0), strict=False))

        def advance(file: Path, position: int) -> None:
            progress.update(task, description=file.name, completed=before[file] + position)

        for text in read_texts(config.sources, bad_lines, advance):
            first = first or text
            if room > 0 and _is_for_report(text):
                for_report.append(text[:room])
                room -= len(text)
            else:
                yield text
    if first is None:
        raise UserError("the sources hold no text; name the right field with sources[0].field=NAME")
    if not for_report:
        for_report.append(first[:REPORT_CHARACTERS])  # too little text to keep any out


def _is_for_report(text: str) -> bool:
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8, person=b"report")
    return int.from_bytes(digest.digest(), "big") % REPORT_SHARE == 0


def _table(reports: dict[str, TokenizerReport]) -> Table:
    table = Table(
        title="on text kept out of training",
        title_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
    )
    columns = (
        "tokenizer",
        "tokens",
        "chars/tok",
        "bytes/tok",
        "exact",
        "unknown",
        "> 2048",
        "used",
    )
    for column in columns:
        left = column == "tokenizer"
        table.add_column(
            column, justify="left" if left else "right", no_wrap=not left, overflow="fold"
        )
    for name, r in zip(short_names(list(reports)), reports.values(), strict=True):
        table.add_row(
            name.replace("[", r"\["),
            f"{r.vocab_size:,}",
            f"{r.characters_per_token:.3f}",
            f"{r.bytes_per_token:.3f}",
            f"{r.exact:.2%}",
            f"{r.unknown:.2%}",
            f"{r.truncated:.1%}",
            f"{r.vocabulary_used:.1%}",
        )
    return table

"""`mengya prepare`: files of text, conversations or preferences -> a folder of token shards.

The shards are made in .OUT.mengya-partial, which is renamed to OUT when it is complete. The same command resumes
after an interruption, and does nothing when OUT already is what it would make.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)  # fmt: skip

from mengya.config import Config, OneOrMany, PathConfig
from mengya.data.prepare.table import print_table
from mengya.errors import UserError
from mengya.runtime.output_folder import FolderKind, OutputFolder, open_folder
from mengya.text.clean import CleanConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mengya.data.ingest.records import Chunk
    from mengya.data.prepare.build import Build
    from mengya.data.prepare.request import Inputs, RequestFile

COMMIT_SECONDS = 5.0  # how much work an interruption may cost
# Bytes on disk: below that, starting more processes takes longer than the work.
SMALL_INPUT = 16 << 20
MAX_ROWS = 100  # of the table, for one folder or glob
_SHARD_FILES = ("manifest.json", *(f"*.{name}.bin" for name in ("tokens", "doc_ends", "loss_mask")))
FOLDER = FolderKind(
    "prepare",
    (
        "prepare.json",
        "bad_lines.jsonl",
        *_SHARD_FILES,
        *(f"{split}/{name}" for split in ("train", "validation") for name in _SHARD_FILES),
    ),
    unmarked=lambda folder: (folder / "prepare.json").is_file(),
)
_UNFINISHED = ("state.json", "hashes.bin", "train", "validation")  # beside those


class Source(PathConfig):
    path: str | list[str]
    """A file, a folder or a glob, or a list of them."""
    name: str | None = None
    """The name in the table and the manifest; without it every file is a source of its own."""
    format: str | None = None
    """The form of the records; found out from their fields when not given. docs/data_format.md lists the names."""
    field: str | list[str] = "text"
    """For kind=text: the field that holds the text; several are joined by line breaks."""
    encoding: str = "utf-8"
    """Encoding of the files, for example gb18030."""
    split_text: Literal["file", "line", "blank_line"] = "file"
    """What is one document in .txt and .md files: the file, a line, or the lines between blank lines."""
    licence: str | None = None
    """Noted in the manifest."""
    limit: int | None = Field(default=None, ge=1)
    """Read only so many records."""

    @property
    def title(self) -> str:
        """The given name, or that of the first path without its suffixes."""
        first = self.path if isinstance(self.path, str) else self.path[0]
        return self.name or Path(first).name.split(".")[0] or first

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError(
                f"{value!r} is not an encoding that Python knows; try utf-8 or gb18030"
            ) from None
        return value


class PrepareConfig(Config):
    out: Path
    """The folder to write; with validation_fraction above 0 the shards are in OUT/train and OUT/validation."""
    kind: Literal["text", "conversation", "preference"] = "text"
    """What the records are: text for pretraining, conversations for SFT, preference pairs for DPO."""
    tokenizer: Path
    """A tokenizer folder."""
    sources: OneOrMany[Source] = Field(min_length=1)
    """What to read; a plain path stands for {path: ...}."""
    clean: CleanConfig = CleanConfig()
    dedup: bool = True
    """Keep only the first of samples that are equal but for white space and case, over all sources."""
    validation_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Hold out about this part, chosen by the hash of the sample (for preferences, of the prompt)."""
    max_bad_lines: int = Field(default=100, ge=0)
    """Skip up to so many lines that cannot be read or do not fit, then refuse."""
    workers: int = Field(default=0, ge=0)
    """Processes; 0 takes one for every processor. The result is the same for any number."""
    overwrite: bool = False
    """Replace OUT when it was made with other settings, or its shards are damaged or have no checksums.

    Only shards that `mengya prepare` wrote are replaced."""

    @model_validator(mode="after")
    def _known_formats(self) -> PrepareConfig:
        from mengya.data.ingest.preferences import PREFERENCE_FORMATS
        from mengya.data.ingest.schema import CONVERSATION_FORMATS

        known = {
            "text": (),
            "conversation": tuple(CONVERSATION_FORMATS),
            "preference": PREFERENCE_FORMATS,
        }[self.kind]
        for number, source in enumerate(self.sources):
            if source.format is not None and source.format not in known:
                names = (
                    f"one of {', '.join(known)}"
                    if known
                    else "not given for text; name the field instead"
                )
                raise ValueError(f"sources.{number}.format {source.format!r} must be {names}")
        return self


def run(config: PrepareConfig) -> None:
    """Make the shards, or say that they are there.

    Raises:
        UserError: OUT holds something else or is being written by another process, too many bad lines,
            nothing to read, nothing kept.
    """
    paths = [source.path for source in config.sources]
    sources = [one for path in paths for one in ([path] if isinstance(path, str) else path)]
    with open_folder(config.out, FOLDER, sources=sources, inputs=[config.tokenizer]) as folder:
        _prepare(config, folder)


def _prepare(config: PrepareConfig, folder: OutputFolder) -> None:
    from mengya.data.prepare.build import Build, read_state
    from mengya.data.prepare.request import Inputs, RequestFile
    from mengya.data.shards import MANIFEST
    from mengya.tokenizer.load import load_tokenizer

    console = Console(stderr=True)
    made = RequestFile(config.out / "prepare.json")
    if made.request is None:
        folder.check_replaceable(overwrite=True)  # before the sources are read
    inputs = Inputs(config, [part for source in config.sources for part in _by_file(source)], made)
    if _is_made(config, made, inputs):
        console.print(
            f"{config.out} is up to date: same settings, tokenizer and files; nothing to do",
            soft_wrap=True,
        )
        return
    folder.check_replaceable(overwrite=True)  # before the work; `_is_made` has asked for overwrite
    partial = folder.partial
    earlier = config.out.with_name(f"{config.out.name}.partial")
    if read_state(earlier, inputs.digest) is not None:  # of a version before the markers
        folder.adopt(earlier, (*FOLDER.names, *_UNFINISHED))
    if folder.is_complete and RequestFile(partial / "prepare.json").request == inputs.request:
        folder.publish()
        console.print(f"{config.out} was complete and only had to be renamed", soft_wrap=True)
        return
    if read_state(partial, inputs.digest) is None:
        if partial.exists():
            console.print(f"{partial} is of a run with other settings or files: starting again")
        folder.start()
    tokenizer = load_tokenizer(config.tokenizer)
    build = Build(
        partial,
        inputs.digest,
        kind=config.kind,
        vocab_size=len(tokenizer),
        sources=len(inputs.sources),
        dedup=config.dedup,
        validation_fraction=config.validation_fraction,
        max_bad_lines=config.max_bad_lines,
    )
    if build.chunks_done:
        read = sum(source.read for source in build.sources)
        console.print(f"going on after {read:,} records that {partial} holds already")
    build.commit()
    title = f"prepare {config.kind}: {config.out}"
    try:
        _encode_all(config, inputs, build, console)
    except UserError:
        build.commit()  # an error comes between two chunks
        print_table(console, title, [source.title for source in inputs.sources], build.sources)
        console.print(f"what is done is kept in {partial}; the same command goes on from there")
        raise
    except KeyboardInterrupt:
        console.print(
            f"interrupted; what was done is kept in {partial}, the same command goes on from there"
        )
        raise
    print_table(console, title, [source.title for source in inputs.sources], build.sources)
    build.finish({"tokenizer": inputs.request["tokenizer"]}, inputs.source_facts())
    inputs.save(partial / "prepare.json")
    folder.publish()
    console.print(
        f"shards are in {', '.join(str(p.parent) for p in sorted(config.out.rglob(MANIFEST)))}"
    )


def _is_made(config: PrepareConfig, made: RequestFile, inputs: Inputs[Source]) -> bool:
    """Whether OUT holds what would be made.

    Raises:
        UserError: it holds something else, which is not to be replaced.
    """
    from mengya.data.prepare.request import differences

    if made.request is None:
        return False
    changed = differences(made.request, inputs.request)
    if changed and not config.overwrite:
        lines = "\n".join(f"  - {line}" for line in changed[:20])
        raise UserError(
            f"{config.out} was made with other settings or files:\n{lines}\n"
            "write overwrite=true to make it again, or choose another out="
        )
    return not changed and not _is_damaged(config)


def _is_damaged(config: PrepareConfig) -> bool:
    """Whether shards in OUT are to be made again: with overwrite=true all their bytes are checked.

    Raises:
        UserError: files are missing or have wrong sizes, and overwrite is false.
    """
    from mengya.data.prepare.build import TRAIN, VALIDATION
    from mengya.data.shards import TokenShards

    splits = (TRAIN, VALIDATION) if config.validation_fraction > 0 else (".",)
    try:
        for split in splits:
            shards = TokenShards(config.out / split)
            if config.overwrite:
                shards.verify()
    except UserError as error:
        if not config.overwrite:
            raise UserError(f"write overwrite=true to make {config.out} again: {error}") from error
        Console(stderr=True).print(
            f"{error}\nmaking {config.out} again", markup=False, soft_wrap=True, highlight=False
        )
        return True
    return False


def _by_file(source: Source) -> list[Source]:
    """A source without a name that is several files: one for each, so that the table tells them apart."""
    from mengya.data.ingest.files import find_files

    paths = [source.path] if isinstance(source.path, str) else source.path
    files = [str(file) for path in paths for file in find_files(path)]
    if source.name is not None or len(files) > MAX_ROWS:
        return [source]
    return [source.model_copy(update={"path": file}) for file in dict.fromkeys(files)]


def _encode_all(
    config: PrepareConfig, inputs: Inputs[Source], build: Build, console: Console
) -> None:
    """Read, encode and write chunk by chunk, with a progress bar over the bytes of the files."""
    from mengya.data.prepare.encode import SourceForm, plan_encoding
    from mengya.data.prepare.workers import encode_in_order

    progress = Progress(
        TextColumn("prepare"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"), console=console,
    )  # fmt: skip
    forms = [SourceForm(source.format, source.field, source.encoding) for source in inputs.sources]
    plan = plan_encoding(config.kind, str(config.tokenizer), forms, config.clean)
    workers = config.workers or (inputs.processors() if inputs.total_bytes > SMALL_INPUT else 1)
    done = build.chunks_done
    committed = time.monotonic()

    def remaining() -> Iterator[tuple[int, Chunk]]:
        for number, (source, chunk) in enumerate(inputs.chunks()):
            if number >= done:
                yield source, chunk

    with (
        progress,
        closing(encode_in_order(remaining(), workers, plan)) as results,
    ):
        bar = progress.add_task("", total=inputs.total_bytes, told="")

        for chunk, encoded in results:
            build.add(encoded)
            total = [source.total for source in build.sources]
            told = f"{sum(t.samples for t in total):,} samples, {sum(t.tokens for t in total):,} tokens"
            progress.update(
                bar, completed=inputs.bytes_before[chunk.file] + chunk.position, told=told
            )
            if time.monotonic() - committed > COMMIT_SECONDS:
                build.commit()
                committed = time.monotonic()
        progress.update(bar, completed=inputs.total_bytes)

"""`mengya prepare`: files of text, conversations or preferences -> a folder of token shards.

The shards are made in .OUT.mengya-partial, which is renamed to OUT when it is complete. The same command
resumes after an interruption, and does nothing when OUT already is what it would make.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from rich.console import Console

from mengya.data.hub.reference import is_hub
from mengya.data.prepare.config import REQUEST, PrepareConfig
from mengya.errors import UserError
from mengya.runtime.output_folder import FolderKind, OutputFolder, open_folder
from mengya.web.language import page_language

if TYPE_CHECKING:
    from pathlib import Path

    from mengya.data.prepare.build import Build
    from mengya.data.prepare.exams.check import ExamCheck, ExamItems
    from mengya.data.prepare.exams.hits import ExamHits
    from mengya.data.prepare.request.inputs import Inputs
    from mengya.data.prepare.request.saved import SavedRequest
    from mengya.evaluation.long_context.head_scores import HeadScores

_SHARD_FILES = ("manifest.json", *(f"*.{name}.bin" for name in ("tokens", "doc_ends", "loss_mask")))
FOLDER = FolderKind(
    "prepare",
    (
        REQUEST,
        "bad_lines.jsonl",
        "contamination.jsonl",
        "data_report.json",
        "report.html",
        *_SHARD_FILES,
        *(f"{split}/{name}" for split in ("train", "validation") for name in _SHARD_FILES),
    ),
    unmarked=lambda folder: (folder / REQUEST).is_file(),
)
_UNFINISHED = (
    "state.json",
    "hashes.bin",
    "near_duplicates.bin",
    "near_splits.bin",
    "exam_hits.jsonl",
    "train",
    "validation",
)  # more names in an unfinished build


def run(config: PrepareConfig) -> None:
    """Make the shards, or say that they are there.

    Raises:
        UserError: OUT holds something else or is being written by another process, too many bad lines,
            nothing to read, nothing kept.
    """
    paths = [source.path for source in config.sources]
    named = [one for path in paths for one in ([path] if isinstance(path, str) else path)]
    sources = [path for path in named if not is_hub(path)]
    if config.contamination is not None:
        sources += [exam.path for exam in config.contamination.exams]
    with open_folder(config.out, FOLDER, sources=sources, inputs=[config.tokenizer]) as folder:
        _prepare(config, folder, Console(stderr=True))


def _prepare(config: PrepareConfig, folder: OutputFolder, console: Console) -> None:
    from mengya.data.prepare.build import clear
    from mengya.data.prepare.report.terminal import print_lengths
    from mengya.data.prepare.request.compare import is_up_to_date
    from mengya.data.prepare.request.hub_sources import with_local_files
    from mengya.data.prepare.request.inputs import Inputs
    from mengya.data.prepare.request.saved import SavedRequest
    from mengya.data.shards import MANIFEST

    try:
        saved = SavedRequest.read(config.out / REQUEST)
    except UserError:
        if not config.overwrite:
            raise
        saved = None
    if saved is None:
        folder.check_replaceable(overwrite=True)  # before the sources are read
    scores = _scores(config)
    config = with_local_files(config, saved, console)
    inputs = Inputs(config, saved, scores.sha256() if scores else "")
    if saved is not None and is_up_to_date(config, saved, inputs, console):
        _note_moved(config.out, saved, inputs, console)
        console.print(
            f"{config.out} is up to date: same settings, tokenizer and files; nothing to do",
            soft_wrap=True,
        )
        return
    folder.check_replaceable(overwrite=True)  # before the work; `is_up_to_date` asked for overwrite
    if (complete := _complete(folder, inputs)) is not None:
        _note_moved(folder.partial, complete, inputs, console)
        clear(folder.partial)
        folder.publish()
        console.print(f"{config.out} was complete and only had to be renamed", soft_wrap=True)
        return
    _check_filters(config)  # before the folder is touched, as are the exams
    exam_check = _exam_check(config)
    inputs.say_notices()
    if not config.skip_unknown_files:
        inputs.check_forms()
    _start(config, folder, inputs, console)
    build = _open_build(config, folder.partial, inputs, exam_check)
    if build.chunks_done:
        read = sum(source.read for source in build.sources)
        console.print(f"resuming after {read:,} records that {folder.partial} holds already")
    build.commit()
    _encode(config, inputs, build, console, scores, exam_check and exam_check.items)
    build.commit()  # what follows takes a while, too
    facts = {key: inputs.request[key] for key in ("tokenizer", "left_out") if key in inputs.request}
    build.finish(facts, inputs.source_facts())
    if build.exam_hits is not None:
        _say_contamination(config.out, build.exam_hits, console)
    if config.report:
        _write_report(config, folder.partial, build, inputs)
    if config.kind != "text":
        print_lengths(console, folder.partial)
    inputs.save(folder.partial / REQUEST)
    clear(folder.partial)
    folder.publish()
    places = ", ".join(str(p.parent) for p in sorted(config.out.rglob(MANIFEST)))
    console.print(f"shards are in {places}", soft_wrap=True)
    if config.report:
        console.print(f"what was kept and dropped: {config.out / 'report.html'}", soft_wrap=True)


def _check_filters(config: PrepareConfig) -> None:
    """Refuse an edit whose library is missing here, and not in a worker after the start."""
    from mengya.text.filters.pipeline import TextFilters

    if config.filters.simplify is not None:
        TextFilters(config.filters)


def _write_report(config: PrepareConfig, directory: Path, build: Build, inputs: Inputs) -> None:
    from mengya.data.prepare.report.kept_text import KeptText
    from mengya.data.prepare.report.write import write_report

    facts = build.report(inputs.source_facts(), KeptText(directory, config.tokenizer))
    write_report(directory, facts, _base_css(), page_language())


def _note_moved(folder: Path, saved: SavedRequest, inputs: Inputs, console: Console) -> None:
    """Say which sources lie elsewhere now or are called otherwise, and correct every file that names them."""
    from mengya.data.prepare.report.moved import rename_lines, renamed_facts
    from mengya.data.prepare.report.write import write_report
    from mengya.data.prepare.request.compare import note_moved

    if not note_moved(folder, saved, inputs, console):
        return
    for name in ("bad_lines.jsonl", "contamination.jsonl"):
        rename_lines(folder / name, saved.request, inputs.request)
    if (facts := renamed_facts(folder, saved.request, inputs.request)) is not None:
        write_report(folder, facts, _base_css(), page_language())


def _base_css() -> str:
    return files("mengya.web").joinpath("page/base.css").read_text(encoding="utf-8")


def _say_contamination(out: Path, hits: ExamHits, console: Console) -> None:
    report = hits.report()
    where = (
        "were dropped"
        if report["action"] == "drop"
        else "stay (contamination.action=drop drops them)"
    )
    for exam in report["exams"]:
        console.print(
            f"exam {exam['name']}: {exam['contaminated']:,} of {exam['items']:,} items found, in "
            f"{exam['documents']:,} documents, which {where}; {out / 'contamination.jsonl'} has them"
            if exam["contaminated"]
            else f"exam {exam['name']}: none of {exam['items']:,} items found",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


def _scores(config: PrepareConfig) -> HeadScores | None:
    """What the filter by perplexity goes by; None without one."""
    if (perplexity := config.filters.perplexity) is None:
        return None
    from mengya.evaluation.long_context.head_scores import HeadScores
    from mengya.models.hf.open_checkpoint import find_checkpoint

    folder = find_checkpoint(perplexity.checkpoint).resolve()
    return HeadScores(folder, perplexity.max_tokens, perplexity.device)


def _complete(folder: OutputFolder, inputs: Inputs) -> SavedRequest | None:
    """What an earlier run made that was stopped before it could rename it; None when it was not finished."""
    from mengya.data.prepare.request.moved import content
    from mengya.data.prepare.request.saved import SavedRequest

    saved = SavedRequest.read(folder.partial / REQUEST)  # the last file that is written
    if saved is None or content(saved.request) != content(inputs.request):
        return None
    return saved


def _start(config: PrepareConfig, folder: OutputFolder, inputs: Inputs, console: Console) -> None:
    """Keep the unfinished build of the same request, else start with an empty folder."""
    from mengya.data.prepare.build import STATE, read_state

    earlier = config.out.with_name(f"{config.out.name}.partial")
    if read_state(earlier, inputs.digest) is not None:  # of a version before the markers
        folder.adopt(earlier, (*FOLDER.names, *_UNFINISHED))
    if read_state(folder.partial, inputs.digest) is None:
        if folder.partial.exists():
            begun = (folder.partial / STATE).exists()
            why = "is of a run with other settings or files" if begun else "holds nothing to resume"
            console.print(f"{folder.partial} {why}: starting again", soft_wrap=True)
        folder.start()


def _exam_check(config: PrepareConfig) -> ExamCheck | None:
    if config.contamination is None:
        return None
    from mengya.data.prepare.exams.check import ExamCheck

    return ExamCheck.of(config.contamination, compose=config.clean.unicode == "none")


def _open_build(
    config: PrepareConfig, directory: Path, inputs: Inputs, exam_check: ExamCheck | None
) -> Build:
    from mengya.data.prepare.build import Build
    from mengya.data.prepare.duplicates.signing import signing_for
    from mengya.tokenizer.load import load_tokenizer

    return Build(
        directory,
        inputs.digest,
        kind=config.kind,
        vocab_size=len(load_tokenizer(config.tokenizer)),
        sources=len(inputs.sources),
        dedup=bool(config.dedup),
        validation_fraction=config.validation_fraction,
        max_bad_lines=config.max_bad_lines,
        max_bad_share=config.max_bad_share,
        signing=signing_for(config.near_duplicates, config.kind, config.validation_fraction),
        exam_check=exam_check,
    )


def _encode(
    config: PrepareConfig,
    inputs: Inputs,
    build: Build,
    console: Console,
    scores: HeadScores | None,
    exam_items: ExamItems | None,
) -> None:
    """Fill the build and print the table; an error or Ctrl-C keeps what is done."""
    from mengya.data.prepare.pipeline import encode_all
    from mengya.data.prepare.report.terminal import print_table, warn_placeholders

    resume = f"kept in {build.directory}; the same command resumes from there"
    title, names = f"prepare {config.kind}: {config.out}", [s.title for s in inputs.sources]
    left_out = [path.name for path in inputs.unknown]
    try:
        encode_all(config, inputs, build, console, scores, exam_items)
    except UserError:
        build.commit()  # an error comes between two chunks
        print_table(console, title, names, build.sources, left_out)
        console.print(f"what is done is {resume}")
        raise
    except KeyboardInterrupt:
        console.print(f"interrupted; what was done is {resume}")
        raise
    print_table(console, title, names, build.sources, left_out)
    warn_placeholders(console, names, build.sources, dropped=config.placeholders == "drop")

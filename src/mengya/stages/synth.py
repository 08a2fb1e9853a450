"""`mengya synth`: documents or seed instructions -> conversations, through an OpenAI-compatible endpoint.

Replies are kept in a ledger in OUT, so that a run that was stopped or killed resumes without paying twice.
What is kept of them, and in which order, depends on the settings and the replies alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mengya.errors import UserError
from mengya.runtime.made_folder import is_up_to_date, write_report
from mengya.runtime.output_folder import FolderKind, open_run_folder
from mengya.synthesis.config import ONLY_FOR, SynthConfig
from mengya.synthesis.conversation import CONVERSATIONS, REPORT, MadeConversation, write_records
from mengya.synthesis.folder import LEDGER, described_files

if TYPE_CHECKING:
    from mengya.endpoint.client import Endpoint
    from mengya.synthesis.instructions import Instructions
    from mengya.synthesis.passages import Passage
    from mengya.synthesis.question_answers import QuestionAnswers
    from mengya.synthesis.selection import Selection

FOLDER = FolderKind("synth", (CONVERSATIONS, REPORT, LEDGER))


def run(config: SynthConfig) -> None:
    """Make the conversations, or say that they are there.

    Raises:
        UserError: OUT holds something else, nothing to read, or the endpoint will not answer.
    """
    console = Console(stderr=True)
    sources = [source.path for source in config.sources]
    with open_run_folder(config.out, FOLDER, sources=sources, key="out"):
        maker = _maker(config)
        request = _request(config, maker)
        if not is_up_to_date(
            config.out / REPORT, config.out / CONVERSATIONS, request, config.overwrite
        ):
            _make(config, maker, request, console)


def _maker(config: SynthConfig) -> QuestionAnswers | Instructions:
    from mengya.data.ingest.reading.records import BadLines
    from mengya.synthesis.instructions import Instructions
    from mengya.synthesis.passages import read_passages
    from mengya.synthesis.question_answers import QuestionAnswers
    from mengya.synthesis.seeds import load_seeds

    def passages() -> Iterator[Passage]:
        return read_passages(config.sources, config.passages, BadLines(config.max_bad_lines))

    if config.kind == "qa":
        if next(passages(), None) is None:
            raise UserError(
                f"no document of the sources has {config.passages.min_characters} characters; name others, "
                "or write passages.min_characters=1"
            )
        return QuestionAnswers(config, passages)
    seeds = load_seeds(config.sources, config.shown, BadLines(config.max_bad_lines))
    return Instructions(config, seeds)


def _request(config: SynthConfig, maker: QuestionAnswers | Instructions) -> dict[str, Any]:
    """All that decides the conversations, apart from what the model replies."""
    ours = {"out", "sources", "prompts", "endpoint", "max_bad_lines", "overwrite"}
    unused = set(ONLY_FOR["instructions" if config.kind == "qa" else "qa"])
    return {
        **config.model_dump(mode="json", exclude=ours | unused),
        "fields": [source.field for source in config.sources],
        "files": described_files(source.path for source in config.sources),
        "prompts": [template.version for template in maker.templates],
        "model": config.endpoint.model,
        "sampling": config.endpoint.sampling.model_dump(mode="json"),
    }


def _make(
    config: SynthConfig,
    maker: QuestionAnswers | Instructions,
    request: dict[str, Any],
    console: Console,
) -> None:
    from mengya.endpoint.client import Endpoint
    from mengya.synthesis.selection import Selection

    with Endpoint(config.endpoint, config.out / LEDGER, console.print) as endpoint:
        if paid := len(endpoint.ledger):
            console.print(f"{paid:,} replies are paid for already", highlight=False)
        selection = Selection(config.kind == "instructions" and config.near_duplicates)
        try:
            conversations, complete = _asked(maker, endpoint, selection, console)
        except (UserError, KeyboardInterrupt):
            kept = len(endpoint.ledger)
            console.print(
                f"{kept:,} replies are kept in {config.out / LEDGER}; the same command resumes from there",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
            raise
        write_records(
            config.out / CONVERSATIONS, (conversation.record() for conversation in conversations)
        )
        _report(config, endpoint, selection, request, complete, console)


def _asked(
    maker: QuestionAnswers | Instructions,
    endpoint: Endpoint,
    selection: Selection,
    console: Console,
) -> tuple[Iterable[MadeConversation], bool]:
    from mengya.endpoint.asking import asker
    from mengya.synthesis.instructions import Instructions

    ask = asker(endpoint, console)
    if isinstance(maker, Instructions):
        return maker.make(endpoint, ask, selection)
    complete = maker.ask(ask)
    return maker.conversations(endpoint, selection), complete


def _report(
    config: SynthConfig,
    endpoint: Endpoint,
    selection: Selection,
    request: dict[str, Any],
    complete: bool,
    console: Console,
) -> None:
    from mengya.endpoint.traffic_report import traffic_facts, traffic_lines
    from mengya.synthesis.kept_table import kept_table

    report = {
        "complete": complete,
        "conversations": selection.kept,
        "turns": selection.turns,
        "dropped": dict(sorted(selection.dropped.items())),
        "traffic": traffic_facts(endpoint),
        "request": request,
        "examples": selection.examples,
    }
    write_report(config.out / REPORT, report)
    kept = {"conversations": selection.kept, "answers": selection.turns}
    console.print(kept_table(f"synth {config.kind}: {config.out}", kept, selection.dropped))
    for line in traffic_lines(endpoint):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    console.print(f"conversations are in {config.out / CONVERSATIONS}", soft_wrap=True)
    if not complete:
        console.print(_what_is_missing(endpoint), highlight=False, soft_wrap=True, markup=False)


def _what_is_missing(endpoint: Endpoint) -> str:
    if endpoint.stopped_at_cap:
        return (
            "stopped before the cap was passed; what came is written. Raise endpoint.max_cost or "
            "endpoint.max_total_tokens and type the same to continue"
        )
    return "some requests were given up; type the same again to ask them once more"

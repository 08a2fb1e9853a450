"""`mengya judge FIRST SECOND`: which of two answers better, in the eyes of a model behind an endpoint.

Answers of checkpoints and replies of the judge are kept in OUT, so that a run that was stopped or killed
resumes without paying twice. What is written depends on the settings, the answers and the replies alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mengya.data.ingest.reading.records import BadLines
from mengya.errors import UserError
from mengya.evaluation.answers.questions import spread
from mengya.evaluation.judge.asking import Asked, Pair, load_prompt, requests
from mengya.evaluation.judge.config import JudgeConfig
from mengya.evaluation.judge.figures import judgement
from mengya.evaluation.judge.outcome import Outcome, outcome
from mengya.evaluation.judge.questions import (
    Question,
    builtin_questions,
    read_answers,
    read_questions,
)
from mengya.evaluation.judge.report import judge_table, markdown, sentences
from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line
from mengya.runtime.made_folder import is_up_to_date, write_report
from mengya.runtime.output_folder import FolderKind, open_run_folder
from mengya.text.prompt_template import Template

if TYPE_CHECKING:
    from mengya.endpoint.client import Endpoint
    from mengya.endpoint.messages import Prompt

REPORT, PAGE, RECORDS, LEDGER = "judge.json", "judge.md", "records.jsonl", ".requests.jsonl"
FOLDER = FolderKind("judge", (REPORT, PAGE, RECORDS, LEDGER, "answers_*.jsonl"))
BUILTIN = "builtin"


def run(config: JudgeConfig) -> None:
    """Judge every pair, or say that it is done; print a table.

    Raises:
        UserError: a side or the questions cannot be used, OUT holds something else, or the endpoint will not
            answer.
    """
    if len(config.sides) != 2:
        raise UserError(
            f"two are compared, {len(config.sides)} given: type mengya judge FIRST SECOND out=FOLDER"
        )
    with open_run_folder(config.out, FOLDER, key="out"):
        questions = _questions(config)
        template = load_prompt(config.prompt)
        request = _request(config, questions, template)
        if not is_up_to_date(config.out / REPORT, config.out / RECORDS, request, config.overwrite):
            _judge(config, questions, template, request)


def _judge(
    config: JudgeConfig,
    questions: Sequence[Question],
    template: Template,
    request: dict[str, Any],
) -> None:
    from mengya.endpoint.asking import asker, is_incomplete
    from mengya.endpoint.client import Endpoint

    console = Console(stderr=True)
    with Endpoint(config.endpoint, config.out / LEDGER, console.print) as endpoint:
        pairs = _pairs(config, questions)

        def prompts() -> Iterator[Prompt]:
            for pair in pairs:
                yield from (asked.prompt for asked in _asked(config, pair, template))

        if paid := len(endpoint.ledger):
            console.print(f"{paid:,} replies are paid for already", highlight=False)
        try:
            asker(endpoint, console)("judging", prompts)
        except (UserError, KeyboardInterrupt):
            console.print(
                f"{len(endpoint.ledger):,} replies are kept in {config.out / LEDGER}; the same command "
                "resumes from there",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
            raise
        if endpoint.traffic.given_up and not endpoint.ledger:
            why = ", ".join(f"{n:,} {reason}" for reason, n in endpoint.traffic.given_up.items())
            raise UserError(
                f"the judge gave no reply: {why}; check endpoint.base_url and endpoint.model, then type the "
                "same again"
            )
        outcomes = [
            outcome(pair, list(_asked(config, pair, template)), endpoint.paid) for pair in pairs
        ]
        _write(config, outcomes, request, endpoint, not is_incomplete(endpoint), console)


def _asked(config: JudgeConfig, pair: Pair, template: Template) -> Iterator[Asked]:
    return requests(pair, template, config.rounds, config.max_answer_characters)


def _write(
    config: JudgeConfig,
    outcomes: Sequence[Outcome],
    request: dict[str, Any],
    endpoint: Endpoint,
    complete: bool,
    console: Console,
) -> None:
    from mengya.endpoint.traffic_report import traffic_facts, traffic_lines

    first, second = map(str, config.sides)
    title = f"{first} against {second}, judged by {config.endpoint.model}"
    found = judgement(outcomes, first, second)
    longest = config.max_answer_characters
    cut = sum(len(o.pair.first) > longest for o in outcomes)
    cut += sum(len(o.pair.second) > longest for o in outcomes)
    lines = sentences(found, first, second, cut)
    records = (json_line(outcome.record()) for outcome in outcomes)
    write_text(config.out / RECORDS, "".join(records))
    write_text(config.out / PAGE, markdown(found, outcomes, title, lines))
    report = {
        "complete": complete,
        **asdict(found),
        "measurements": [measurement.to_json() for measurement in found.measurements],
        "cut_answers": cut,
        "traffic": traffic_facts(endpoint),
        "request": request,
    }
    write_report(config.out / REPORT, report)
    if found.measurements:
        Console().print(judge_table(found, title))
    for line in [*lines, *traffic_lines(endpoint), f"written to {config.out}"]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if not complete:
        console.print(
            "not all pairs are judged: raise endpoint.max_cost or endpoint.max_total_tokens where a cap was "
            "reached, check the endpoint where requests were given up, and type the same again",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def _questions(config: JudgeConfig) -> list[Question]:
    """Those of the key, else of the first file of answers, else ours; evenly thinned to `limit`."""
    files = [side for side in config.sides if side.is_file()]
    named = config.questions or (files[0] if files else BUILTIN)
    if str(named) == BUILTIN:
        questions = builtin_questions()
    else:
        questions = read_questions(Path(named), BadLines(config.max_bad_lines))
    return spread(questions, config.limit)


def _pairs(config: JudgeConfig, questions: Sequence[Question]) -> list[Pair]:
    first, second = (_answers(config, side, questions) for side in config.sides)
    return [Pair(q, first[q.key], second[q.key]) for q in questions]


def _answers(config: JudgeConfig, side: Path, questions: Sequence[Question]) -> dict[str, str]:
    if not side.is_file():
        from mengya.evaluation.judge.sides import checkpoint_answers

        return checkpoint_answers(side, questions, config)
    answers = read_answers(side, BadLines(config.max_bad_lines))
    if missing := [question for question in questions if question.key not in answers]:
        raise UserError(
            f"{side} has no answer to {len(missing):,} of {len(questions):,} questions, the first is "
            f"{missing[0].id!r}: {missing[0].key[:60]}; add them, or write questions=PATH of a file with "
            "those that both answer"
        )
    return answers


def _request(
    config: JudgeConfig, questions: Sequence[Question], template: Template
) -> dict[str, Any]:
    """All that decides the figures, apart from what the judge replies."""
    ours = {
        "out",
        "sides",
        "questions",
        "limit",
        "prompt",
        "endpoint",
        "overwrite",
        "max_bad_lines",
    }
    keys = "\n".join(question.key + question.reference for question in questions)
    return {
        **config.model_dump(mode="json", exclude=ours | {"device", "threads"}),
        "sides": [{"path": str(side), "sha256": _sha256(side)} for side in config.sides],
        "questions": hashlib.sha256(keys.encode()).hexdigest(),
        "prompt": template.version,
        "model": config.endpoint.model,
        "sampling": config.endpoint.sampling.model_dump(mode="json"),
    }


def _sha256(side: Path) -> str:
    if side.is_file():
        with side.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    from mengya.measured.evaluation import subject_sha256
    from mengya.models.hf.open_checkpoint import find_checkpoint

    return subject_sha256(find_checkpoint(side))

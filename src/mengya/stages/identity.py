"""`mengya identity`: a name and an author -> conversations in which the model says who it is.

They are composed by rules and need no endpoint; `paraphrase` adds wordings of a model's own.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console

from mengya.errors import UserError
from mengya.runtime.made_folder import is_up_to_date, write_report
from mengya.runtime.output_folder import FolderKind, open_run_folder
from mengya.synthesis.conversation import CONVERSATIONS, REPORT, MadeConversation, write_records
from mengya.synthesis.folder import LEDGER
from mengya.synthesis.identity.compose import VERSION, Composed, compose_conversations
from mengya.synthesis.identity.config import IdentityConfig
from mengya.synthesis.identity.parts import CHINESE, load_languages
from mengya.synthesis.selection import Selection
from mengya.text.identity.exam import exam_questions

HELD_OUT, QUESTIONS = "held_out.jsonl", "questions.jsonl"
FOLDER = FolderKind("identity", (CONVERSATIONS, HELD_OUT, QUESTIONS, REPORT, LEDGER))


def run(config: IdentityConfig) -> None:
    """Write the conversations, or say that they are there.

    Raises:
        UserError: OUT holds something else; with paraphrase, that the endpoint will not answer.
    """
    console = Console(stderr=True)
    with open_run_folder(config.out, FOLDER, key="out"):
        request = _request(config)
        if is_up_to_date(
            config.out / REPORT, config.out / CONVERSATIONS, request, config.overwrite
        ):
            return
        composed, exam = compose_conversations(config), exam_questions(config.name, config.author)
        selection, facts = Selection(), dict[str, Any](complete=True)
        train = composed.train
        if config.paraphrase:
            more, facts = _reworded(config, composed, exam, selection, console)
            train = [*train, *more]
        write_records(config.out / CONVERSATIONS, (made.record() for made in train))
        write_records(config.out / HELD_OUT, (made.record() for made in composed.held_out))
        write_records(config.out / QUESTIONS, exam)
        counts = {"conversations": len(train), "held_out": len(composed.held_out)}
        dropped = {"dropped": dict(sorted(selection.dropped.items()))} if selection.dropped else {}
        write_report(config.out / REPORT, {**counts, **dropped, **facts, "request": request})
        _say(config, counts, len(exam), console)


def _request(config: IdentityConfig) -> dict[str, Any]:
    """All that decides the conversations."""
    request = config.model_dump(mode="json", exclude={"out", "endpoint", "overwrite"})
    if config.paraphrase:
        request["model"] = config.endpoint.model
        request["sampling"] = config.endpoint.sampling.model_dump(mode="json")
    return {**request, "version": VERSION}


def _reworded(
    config: IdentityConfig,
    composed: Composed,
    exam: list[dict[str, Any]],
    selection: Selection,
    console: Console,
) -> tuple[list[MadeConversation], dict[str, Any]]:
    from mengya.endpoint.asking import asker
    from mengya.endpoint.client import Endpoint
    from mengya.endpoint.traffic_report import traffic_facts, traffic_lines
    from mengya.synthesis.identity.paraphrase import Paraphrases, names_in

    asked = [
        m["content"] for made in composed.held_out for m in made.messages if m["role"] == "user"
    ]
    asked += [turn for question in exam for turn in question["turns"]]
    names = names_in(load_languages()[CHINESE], (config.name, config.author))
    paraphrases = Paraphrases(config.paraphrase, composed.train, asked, names)
    with Endpoint(config.endpoint, config.out / LEDGER, console.print) as endpoint:
        try:
            complete = paraphrases.ask(asker(endpoint, console))
        except (UserError, KeyboardInterrupt):
            console.print("replies so far are kept; the same command resumes from there")
            raise
        made = list(paraphrases.conversations(endpoint, selection))
        for line in traffic_lines(endpoint):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
        return made, {"complete": complete, "traffic": traffic_facts(endpoint)}


def _say(config: IdentityConfig, counts: dict[str, int], questions: int, console: Console) -> None:
    held = f", {counts['held_out']:,} with other wordings in {config.out / HELD_OUT}"
    console.print(
        f"{counts['conversations']:,} conversations are in {config.out / CONVERSATIONS}{held}, "
        f"{questions} questions to test with in {config.out / QUESTIONS}",
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip
    if sum(counts.values()) < config.count:
        console.print(
            f"the parts give no more than {sum(counts.values()):,} different ones of the {config.count:,} "
            "wanted; paraphrase=NUMBER adds wordings through an endpoint",
            highlight=False, soft_wrap=True,
        )  # fmt: skip

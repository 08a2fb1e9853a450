"""`mengya evaluate CHECKPOINT`: bits per character, loss by position, exams, preferences, passkeys.

`measure` returns the numbers; `run` also prints and saves them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, model_validator
from rich.console import Console

from mengya.config import Config, OneOrMany
from mengya.data.exams.config import ExamSource
from mengya.data.exams.items import exam_name
from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import TextSource, read_texts
from mengya.data.shards import TokenShards
from mengya.evaluation.exams.benchmarks import Protocol, find_benchmark
from mengya.evaluation.exams.exam import ExamSettings, ask_exam, is_path
from mengya.evaluation.exams.model.journal import Journal, model_digest
from mengya.evaluation.exams.result import ExamResult
from mengya.evaluation.likelihood.bits_per_char import bits_per_char
from mengya.evaluation.likelihood.by_position import nats_by_position
from mengya.evaluation.likelihood.held_out import document_ids, first_characters, texts_of_shards
from mengya.evaluation.likelihood.preference import pairs_of_shards, preference_accuracy
from mengya.evaluation.long_context.passkey import PasskeyCell, PasskeyConfig, passkey_retrieval
from mengya.evaluation.measurement import Measurement
from mengya.evaluation.registry import YARDSTICKS
from mengya.evaluation.results import Evaluation, results_table
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig
from mengya.generation.chat_detection import is_chat_model
from mengya.models.hf.open_checkpoint import (
    DtypeName,
    find_checkpoint,
    open_checkpoint,
    pick_dtype,
)
from mengya.runtime.device import DeviceName, init_device
from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line
from mengya.tokenizer.chat_template import chat_template_hash
from mengya.tokenizer.load import tokenizer_hash


class EvaluateConfig(Config):
    checkpoint: Path
    """Model folder, adapter folder, or run folder (its best, else latest, checkpoint)."""
    texts: OneOrMany[TextSource] = []
    """Held-out text for bits per character; a path alone means {path: ...}."""
    text_shards: OneOrMany[Path] = []
    """Held-out text as shards made with this checkpoint's tokenizer, such as OUT/validation of
    `mengya prepare`; measured together with texts."""
    max_characters: int | None = Field(default=None, ge=1)
    """Stop bits per character after the document that reaches so many characters; null reads all."""
    window: int | None = Field(default=None, ge=1)
    """Longest context in tokens for bits per character; null: the longest row that the model
    was trained on, as its validation measured; the model's context where that is not known."""
    max_bad_lines: int = Field(default=0, ge=0)
    """Unreadable lines of the texts to skip before giving up."""
    exams: OneOrMany[str] = []
    """Benchmarks: a name (ceval, cmmlu, gsm8k ...; exams=list shows all) loads the data from the Hub, a
    folder or file in the layout of its authors is read locally; extra `eval`."""
    exam_protocol: OneOrMany[Protocol] = []
    """letters: the likeliest of A, B, C, D after question and options; answers: the likeliest of the options
    themselves; both next to each other as [letters,answers]. [] asks each exam in the harness's own way, as
    does a protocol that an exam does not have."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Solved examples before each exam question, from its dev or train split; null: the harness's own number
    (5 for gsm8k, mostly 0)."""
    chat_template: bool = False
    """Ask exam questions as a user turn; false continues plain text, as leaderboards do."""
    subjects: list[str] | None = None
    """Only these subjects; null asks all."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many questions of each subject."""
    batch_size: int | None = Field(default=None, ge=1)
    """Most exam questions in a forward pass; null: as many as fit."""
    run_exam_code: bool = False
    """Let programs that the model writes run, which is how HumanEval and LiveCodeBench are scored: each in a
    process of its own, with limits of time, memory, files and network."""
    preferences: Path | None = None
    """Held-out pairs: a shard folder that `mengya prepare kind=preference` wrote."""
    positions: int | None = Field(default=None, ge=16)
    """Also measure nats per token by position, up to this one (beyond the model's context, to see it fail),
    on the first 64 documents of the texts that are long enough; null: do not."""
    passkey: PasskeyConfig | None = None
    """Passkey retrieval by length and depth; passkey={} takes the defaults."""
    yardsticks: OneOrMany[str] = []
    """Fixed sets that ship with mengya, by name."""
    yardstick: YardstickConfig = YardstickConfig()
    """Settings of the yardsticks."""
    device: DeviceName = "auto"
    """auto: CUDA where there is a GPU, else the CPU."""
    threads: PositiveInt | None = None
    """CPU threads that share a computation of torch; null: torch's own choice, OMP_NUM_THREADS or else one
    a core."""
    dtype: DtypeName = "auto"
    """dtype of the weights; auto: float32 on CPU, bfloat16 elsewhere."""
    out: Path | None = None
    """JSON file for the results; null: evaluation.json in the checkpoint folder."""

    @model_validator(mode="after")
    def _measures_something(self) -> EvaluateConfig:
        has_text = bool(self.texts or self.text_shards)
        if not (has_text or self.exams or self.preferences or self.passkey or self.yardsticks):
            raise ValueError(
                "nothing to measure: give texts=FILE, text_shards=SHARDS, exams=NAME or FOLDER, "
                "preferences=SHARDS, passkey={} or yardsticks=NAME (or several)"
            )
        unknown = [name for name in self.yardsticks if name not in YARDSTICKS]
        if unknown:
            raise ValueError(
                f"yardsticks={unknown[0]} is not one of {', '.join(YARDSTICKS) or 'none yet'}"
            )
        for exam in self.exams:
            if not is_path(exam):
                find_benchmark(exam)
        if self.positions is not None and not has_text:
            raise ValueError(
                f"positions={self.positions} needs texts=FILE or text_shards=SHARDS to measure on"
            )
        return self


def measure(
    config: EvaluateConfig, show_progress: bool = False, journal_path: Path | None = None
) -> Evaluation:
    """Everything that `config` asks for; prints nothing.

    Args:
        journal_path: where the answers of exams are noted as they come, to be read after a crash; None:
            nowhere.

    Raises:
        UserError: the checkpoint, texts, shards or exams cannot be used.
    """
    device = init_device(config.device, config.threads)
    dtype = pick_dtype(config.dtype, device)
    text = by_position = preference = None
    passkey: list[PasskeyCell] = []
    yardsticks: dict[str, list[Measurement]] = {}
    exams: dict[str, ExamResult] = {}
    exam_items: dict[str, list[dict[str, Any]]] = {}
    needs_model = config.texts or config.text_shards or config.preferences or config.passkey
    if needs_model or config.yardsticks or config.exams:
        model, tokenizer = open_checkpoint(config.checkpoint, device, dtype)
        sha256 = tokenizer_hash(find_checkpoint(config.checkpoint))

        def texts() -> Iterator[str]:
            return chain(
                read_texts(config.texts, BadLines(config.max_bad_lines)),
                texts_of_shards(config.text_shards, tokenizer, sha256),
            )

        if config.texts or config.text_shards:
            measured = first_characters(texts(), config.max_characters)
            text = bits_per_char(model, tokenizer, measured, config.window)
        if config.positions is not None:
            # A second pass, which ends at the last document needed, so that no text is kept in memory.
            documents = document_ids(tokenizer, texts())
            by_position = nats_by_position(model, documents, config.positions)
        if config.passkey:
            passkey = passkey_retrieval(model, tokenizer, config.passkey)
        if config.preferences:
            shards = TokenShards(config.preferences)
            template = chat_template_hash(tokenizer)
            shards.require("preference", tokenizer_sha256=sha256, chat_template_sha256=template)
            preference = preference_accuracy(model, pairs_of_shards(shards))
        folder = find_checkpoint(config.checkpoint)
        subject = Subject(model, tokenizer, folder, is_chat_model(model, tokenizer))
        for name in config.yardsticks:
            yardsticks[name] = YARDSTICKS[name](subject, config.yardstick).measurements
        if config.exams:
            journal = Journal(journal_path, model_digest(model) if journal_path else "")
            for exam in config.exams:
                asked = ask_exam(subject, exam, _exam_settings(config), journal, show_progress)
                name = exam_name(ExamSource(path=exam)) if is_path(exam) else exam
                name = exam if any(key.split("/")[0] == name for key in exams) else name
                for protocol, (result, items) in asked.items():
                    key = name if len(asked) == 1 else f"{name}/{protocol}"
                    exams[key], exam_items[key] = result, items
    return Evaluation(
        str(config.checkpoint),
        text,
        by_position,
        preference,
        passkey,
        exams,
        yardsticks,
        exam_items,
    )


def _exam_settings(config: EvaluateConfig) -> ExamSettings:
    return ExamSettings(
        protocols=config.exam_protocol,
        num_fewshot=config.num_fewshot,
        chat_template=config.chat_template,
        subjects=config.subjects,
        limit=config.limit,
        batch_size=config.batch_size,
        run_code=config.run_exam_code,
    )


def run(config: EvaluateConfig) -> None:
    """Measure, print a table, and write the results as JSON."""
    out = config.out or find_checkpoint(config.checkpoint) / "evaluation.json"
    journal_path = out.with_name(f"{out.stem}_unfinished.jsonl")
    result = measure(config, sys.stderr.isatty(), journal_path)
    save_results(result, config, out)
    journal_path.unlink(missing_ok=True)
    Console().print(results_table(result))
    Console(stderr=True).print(f"written to {out}", highlight=False, markup=False)


def save_results(result: Evaluation, config: EvaluateConfig, path: Path) -> None:
    """Write the results and the settings that gave them as JSON, the items of exams as JSON lines in a folder
    next to it."""
    values = {**asdict(result), "config": config.model_dump(mode="json")}
    del values["exam_items"]
    for name, items in result.exam_items.items():
        file = path.with_name(f"{path.stem}_items") / "exams" / f"{name.replace('/', '.')}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, "".join(map(json_line, items)))
    write_text(path, json.dumps(values, ensure_ascii=False, indent=2) + "\n")

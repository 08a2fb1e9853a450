"""`mengya evaluate CHECKPOINT`: bits per character, loss by position, exams, preferences, passkeys, and more.

`measure` returns the numbers; `run` also prints them, and saves each as soon as it is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, PositiveInt, model_validator
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from mengya.config import Config, OneOrMany
from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import TextSource, read_texts
from mengya.data.shards import MANIFEST, TokenShards
from mengya.data.training_record import read_training_record
from mengya.errors import UserError
from mengya.evaluation.answers.questions import spread
from mengya.evaluation.answers.references.held_out import ReferenceSource, read_references
from mengya.evaluation.answers.references.overlap import overlap
from mengya.evaluation.exams.multiple_choice import multiple_choice
from mengya.evaluation.likelihood.bits_per_char import DocumentCost, document_costs, total_cost
from mengya.evaluation.likelihood.by_domain import bits_by_domain
from mengya.evaluation.likelihood.by_position import nats_by_position
from mengya.evaluation.likelihood.held_out import (
    HeldOutText,
    document_ids,
    documents_of_shards,
    first_characters,
)
from mengya.evaluation.likelihood.preference import pairs_of_shards, preference_accuracy
from mengya.evaluation.long_context.config import LongContextConfig
from mengya.evaluation.long_context.measure import long_context
from mengya.evaluation.long_context.passkey import PasskeyCell, PasskeyConfig, passkey_retrieval
from mengya.evaluation.measurement import Measurement
from mengya.evaluation.record.file import FILE, EvaluationFile, subject_sha256
from mengya.evaluation.record.provenance import (
    Provenance,
    commit_of_clone,
    contamination_line,
    hardware_name,
    package_versions,
)
from mengya.evaluation.registry import YARDSTICKS
from mengya.evaluation.results import Evaluation, results_table
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult
from mengya.generation.chat_detection import is_chat_model
from mengya.models.hf.open_checkpoint import (
    DtypeName,
    find_checkpoint,
    open_checkpoint,
    pick_dtype,
    standard_folder,
)
from mengya.runtime.device import DeviceName, init_device
from mengya.runtime.folder_lock import say
from mengya.runtime.typed_command import typed_command
from mengya.tokenizer.chat_template import chat_template_hash
from mengya.tokenizer.load import tokenizer_hash
from mengya.version import __version__

# The keys that decide a part of the results, other than those that hold for all of them.
_TEXT_KEYS = {"texts", "text_shards", "max_characters", "window"}
_DOMAIN_KEYS = {*_TEXT_KEYS, "domains"}
_EXAM_KEYS = {"num_fewshot", "chat_template", "subjects", "limit", "batch_size"}


class EvaluateConfig(Config):
    checkpoint: Path
    """Model folder, adapter folder, or run folder (its best, else latest, checkpoint)."""
    texts: OneOrMany[TextSource] = []
    """Held-out text for bits per character; a path alone means {path: ...}."""
    text_shards: OneOrMany[Path] = []
    """Held-out text as shards made with this checkpoint's tokenizer, such as OUT/validation of
    `mengya prepare`; measured together with texts."""
    domains: dict[str, OneOrMany[TextSource]] = {}
    """Held-out text by domain, {law: FILE or shard folder, news: ...}: bits per character and per byte of
    each and over all. The sources of text_shards are domains without being named here."""
    max_characters: int | None = Field(default=None, ge=1)
    """Stop bits per character after the document that reaches so many characters, of texts and text_shards
    together and of each of domains; null reads all."""
    window: int | None = Field(default=None, ge=1)
    """Longest context in tokens for bits per character; null: the longest row that the model
    was trained on, as its validation measured; the model's context where that is not known."""
    max_bad_lines: int = Field(default=0, ge=0)
    """Unreadable lines of the texts to skip before giving up."""
    exams: OneOrMany[Path] = []
    """Folders in CMMLU's layout (dev/ and test/SUBJECT.csv) or C-Eval's (dev/ and val/); extra
    `eval`."""
    num_fewshot: int = Field(default=0, ge=0)
    """Solved examples before each exam question, from dev/."""
    chat_template: bool = False
    """Ask exam questions as a user turn; false continues plain text, as leaderboards do."""
    subjects: list[str] | None = None
    """Only these subjects; null asks all."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many questions of each subject."""
    batch_size: int = Field(default=32, ge=1)
    """Exam questions per forward pass."""
    preferences: Path | None = None
    """Held-out pairs: a shard folder that `mengya prepare kind=preference` wrote."""
    positions: int | None = Field(default=None, ge=16)
    """Also measure nats per token by position, up to this one (beyond the model's context, to see it fail),
    on the first 64 documents of the texts that are long enough; null: do not."""
    passkey: PasskeyConfig | None = None
    """Passkey retrieval by length and depth; passkey={} takes the defaults."""
    long_context: LongContextConfig | None = None
    """Documents, questions and LongBench-style tasks by length bucket; long_context={} asks the questions."""
    answers_to: ReferenceSource | None = None
    """Held-out conversations, in any format that `mengya prepare` reads, or conversation shards: how much
    greedy answers overlap with the last turn of each (token-F1, ROUGE-L, BLEU, chrF); extra `eval`."""
    max_references: int = Field(default=200, ge=1)
    """Conversations of answers_to that are asked, spread evenly over them."""
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
    seed: int = Field(default=0, ge=0)
    """Seed of all that is drawn, where yardstick.seed, passkey.seed and long_context.seed say no other."""
    again: bool = False
    """Measure yardsticks again that an earlier command measured on this checkpoint with these settings."""
    out: Path | None = None
    """JSON file for the results, with the items in a folder next to it; null: evaluation.json in the
    checkpoint folder. Figures of the same checkpoint that are there already are kept."""

    @model_validator(mode="after")
    def _one_seed(self) -> EvaluateConfig:
        if "seed" not in self.yardstick.model_fields_set:
            self.yardstick = self.yardstick.model_copy(update={"seed": self.seed})
        if self.passkey is not None and "seed" not in self.passkey.model_fields_set:
            self.passkey = self.passkey.model_copy(update={"seed": self.seed})
        if self.long_context is not None and "seed" not in self.long_context.model_fields_set:
            self.long_context = self.long_context.model_copy(update={"seed": self.seed})
        return self

    @model_validator(mode="after")
    def _measures_something(self) -> EvaluateConfig:
        has_text = bool(self.texts or self.text_shards)
        others = self.domains or self.exams or self.preferences or self.passkey or self.yardsticks
        if not (has_text or others or self.long_context or self.answers_to):
            raise ValueError(
                "nothing to measure: give texts=FILE, text_shards=SHARDS, domains.NAME=FILE, exams=FOLDER, "
                "preferences=SHARDS, passkey={}, long_context={}, answers_to=FILE or yardsticks=NAME (or "
                "several)"
            )
        unknown = [name for name in self.yardsticks if name not in YARDSTICKS]
        if unknown:
            raise ValueError(
                f"yardsticks={unknown[0]} is not one of {', '.join(YARDSTICKS) or 'none yet'}"
            )
        if self.positions is not None and not has_text:
            raise ValueError(
                f"positions={self.positions} needs texts=FILE or text_shards=SHARDS to measure on"
            )
        return self


def measure(
    config: EvaluateConfig, show_progress: bool = False, file: EvaluationFile | None = None
) -> Evaluation:
    """Everything that `config` asks for; prints nothing.

    Args:
        file: where each result is written as soon as it is measured, and where yardsticks come from that
            are measured already; None writes nothing.

    Raises:
        UserError: the checkpoint, texts, shards or exams cannot be used.
    """
    device = init_device(config.device, config.threads)
    dtype = pick_dtype(config.dtype, device)
    text = by_position = preference = None
    passkey: list[PasskeyCell] = []
    yardsticks = {} if file is None or config.again else _finished(config, file, device, dtype)
    pending = [name for name in config.yardsticks if name not in yardsticks]

    def keep(part: str, value: Any, keys: set[str], items: Sequence[dict[str, Any]] = ()) -> None:
        if file is not None:
            file.keep(part, value, _settings(config, keys, device, dtype), items)

    has_text = bool(config.texts or config.text_shards)
    others = config.domains or config.preferences or config.passkey or config.long_context
    if has_text or others or config.answers_to or pending:
        model, tokenizer = open_checkpoint(config.checkpoint, device, dtype)
        sha256 = tokenizer_hash(find_checkpoint(config.checkpoint))

        def texts() -> Iterator[HeldOutText]:
            return chain(
                map(HeldOutText, read_texts(config.texts, BadLines(config.max_bad_lines))),
                documents_of_shards(config.text_shards, tokenizer, sha256),
            )

        def costs(of: Iterator[HeldOutText]) -> list[DocumentCost]:
            measured = first_characters(of, config.max_characters)
            return list(document_costs(model, tokenizer, measured, config.window))

        by_domain: list[DocumentCost] = []
        if has_text:
            documents = costs(texts())
            text = total_cost(documents)
            keep("text", asdict(text), _TEXT_KEYS)
            by_domain += [document for document in documents if document.domain]
        for domain, sources in config.domains.items():
            by_domain += costs(_domain_texts(domain, sources, config, tokenizer, sha256))
        if by_domain:
            result = bits_by_domain(by_domain, seed=config.seed)
            yardsticks["bits_per_char"] = result.measurements
            figures = [each.to_json() for each in result.measurements]
            keep("yardsticks/bits_per_char", figures, _DOMAIN_KEYS, result.items)
        if config.positions is not None:
            # A second pass, which ends at the last document needed, so that no text is kept in memory.
            rows = document_ids(tokenizer, (found.text for found in texts()))
            by_position = nats_by_position(model, rows, config.positions)
            keep("by_position", asdict(by_position), {*_TEXT_KEYS, "positions"})
        if config.passkey:
            passkey = passkey_retrieval(model, tokenizer, config.passkey)
            keep("passkey", [asdict(cell) for cell in passkey], {"passkey"})
        if config.preferences:
            shards = TokenShards(config.preferences)
            template = chat_template_hash(tokenizer)
            shards.require("preference", tokenizer_sha256=sha256, chat_template_sha256=template)
            preference = preference_accuracy(model, pairs_of_shards(shards))
            keep("preference", asdict(preference), {"preferences"})
        if pending or config.long_context or config.answers_to:
            folder = find_checkpoint(config.checkpoint)
            subject = Subject(model, tokenizer, folder, is_chat_model(model, tokenizer))
            if config.long_context:
                result = long_context(subject, config.long_context)
                yardsticks["long_context"] = result.measurements
                figures = [each.to_json() for each in result.measurements]
                keep("yardsticks/long_context", figures, {"long_context"}, result.items)
            if config.answers_to:
                result = _overlap(config, config.answers_to, subject)
                yardsticks["overlap"] = result.measurements
                figures = [each.to_json() for each in result.measurements]
                keep("yardsticks/overlap", figures, {"answers_to", "max_references"}, result.items)
            for name in pending:
                torch.manual_seed(config.yardstick.seed)  # whatever was measured before it
                result = YARDSTICKS[name](subject, config.yardstick)
                yardsticks[name] = result.measurements
                figures = [each.to_json() for each in result.measurements]
                keep(f"yardsticks/{name}", figures, {"yardstick"}, result.items)
            del subject
        del model
    exams = {}
    if config.exams:
        with standard_folder(config.checkpoint) as folder:
            for exam in config.exams:
                name = exam.name if exam.name not in exams else str(exam)
                exams[name] = multiple_choice(
                    folder,
                    exam,
                    num_fewshot=config.num_fewshot,
                    chat_template=config.chat_template,
                    subjects=config.subjects,
                    limit=config.limit,
                    device=str(device),
                    dtype=str(dtype).removeprefix("torch."),
                    batch_size=config.batch_size,
                    show_progress=show_progress,
                )
                keep(f"exams/{name}", asdict(exams[name]), _EXAM_KEYS)
    return Evaluation(
        str(config.checkpoint), text, by_position, preference, passkey, exams, yardsticks
    )


def _domain_texts(
    domain: str,
    sources: Sequence[TextSource],
    config: EvaluateConfig,
    tokenizer: PreTrainedTokenizerFast,
    tokenizer_sha256: str,
) -> Iterator[HeldOutText]:
    """The texts of one of `domains`, files and shard folders.

    Raises:
        UserError: a source cannot be read, or has no text.
    """
    bad_lines, count = BadLines(config.max_bad_lines), 0
    for source in sources:
        folder = Path(source.path)
        if (folder / MANIFEST).is_file():
            shards = documents_of_shards([folder], tokenizer, tokenizer_sha256)
            texts = (found.text for found in shards)
        else:
            texts = read_texts([source], bad_lines)
        for text in texts:
            if text:
                count += 1
                yield HeldOutText(text, domain, f"{domain}:{count}")
    if not count:
        raise UserError(
            f"domains.{domain}: every document was empty; give a file or shard folder with text"
        )


def _overlap(config: EvaluateConfig, source: ReferenceSource, subject: Subject) -> YardstickResult:
    bad_lines = BadLines(config.max_bad_lines)
    sha256 = tokenizer_hash(subject.folder)
    references = list(read_references(source, subject, sha256, bad_lines))
    if subject.chat and not references:
        raise UserError(
            f"answers_to={source.path} holds no conversation whose last turn is an answer in text"
        )
    return overlap(subject, spread(references, config.max_references), config.yardstick)


def run(config: EvaluateConfig) -> None:
    """Measure, print a table, and write the results as JSON."""
    file = open_file(config)
    if file.dropped:
        say(f"{file.path}: the checkpoint has changed; dropped: {', '.join(file.dropped)}")
    result = measure(config, show_progress=sys.stderr.isatty(), file=file)
    Console().print(results_table(result))
    Console(stderr=True).print(f"written to {file.path}", highlight=False, markup=False)


def open_file(config: EvaluateConfig) -> EvaluationFile:
    """The file that takes the results of a command, and what it says of their origin.

    Raises:
        UserError: the checkpoint cannot be read.
    """
    folder = find_checkpoint(config.checkpoint)
    device = init_device(config.device, config.threads)
    provenance = Provenance(
        command=typed_command("evaluate", config, "checkpoint", leave_out={"again"}),
        seed=config.seed,
        device=device.type,
        hardware=hardware_name(device),
        dtype=str(pick_dtype(config.dtype, device)).removeprefix("torch."),
        versions=package_versions(),
        tokenizer_sha256=tokenizer_hash(folder),
        commit=commit_of_clone(),
        contamination=contamination_line(read_training_record(folder)),
    )
    return EvaluationFile(
        config.out or folder / FILE,
        str(config.checkpoint),
        subject_sha256(folder),
        provenance,
        config.model_dump(mode="json", exclude={"again"}),
    )


def _finished(
    config: EvaluateConfig, file: EvaluationFile, device: torch.device, dtype: torch.dtype
) -> dict[str, list[Measurement]]:
    """The yardsticks of the command that the file has with the same settings."""
    settings = _settings(config, {"yardstick"}, device, dtype)
    found = {name: file.finished(f"yardsticks/{name}", settings) for name in config.yardsticks}
    return {
        name: [Measurement.from_json(each) for each in figures]
        for name, figures in found.items()
        if figures is not None
    }


def _settings(
    config: EvaluateConfig, keys: set[str], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """What decides a figure, apart from the checkpoint."""
    return {
        "mengya": __version__,
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        **config.model_dump(mode="json", include=keys),
    }

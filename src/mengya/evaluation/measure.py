"""Everything that one command measures on one checkpoint; each result is written as soon as it is there.

Takes an EvaluateConfig; gives an Evaluation. The file of the results (record/) is open_file's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from mengya.data.exams.config import ExamSource
from mengya.data.exams.items import exam_name
from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import TextSource, read_texts
from mengya.data.shards import MANIFEST, TokenShards
from mengya.data.training_record import read_training_record
from mengya.errors import UserError
from mengya.evaluation.answers.questions import spread
from mengya.evaluation.answers.references.held_out import read_references
from mengya.evaluation.answers.references.overlap import overlap
from mengya.evaluation.config import EvaluateConfig
from mengya.evaluation.exams.exam import ExamSettings, ask_exam, is_path
from mengya.evaluation.exams.model.journal import Journal, model_digest
from mengya.evaluation.exams.result import ExamResult
from mengya.evaluation.likelihood.bits_per_char import (
    BitsPerChar,
    DocumentCost,
    document_costs,
    text_items,
    total_cost,
)
from mengya.evaluation.likelihood.by_domain import bits_by_domain
from mengya.evaluation.likelihood.by_position import ByPosition, nats_by_position
from mengya.evaluation.likelihood.held_out import (
    HeldOutText,
    document_ids,
    documents_of_shards,
    first_characters,
)
from mengya.evaluation.likelihood.preference import (
    PreferenceAccuracy,
    pairs_of_shards,
    preference_accuracy,
)
from mengya.evaluation.long_context.measure import long_context
from mengya.evaluation.long_context.passkey import PasskeyCell, passkey_retrieval
from mengya.evaluation.progress import progress_bar
from mengya.evaluation.record.file import EvaluationFile
from mengya.evaluation.record.provenance import Provenance, contamination_line
from mengya.evaluation.registry import YARDSTICKS
from mengya.evaluation.results import Evaluation
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult
from mengya.generation.chat_detection import is_chat_model
from mengya.measured.evaluation import FILE, subject_sha256
from mengya.measured.measurement import Measurement
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.open_checkpoint import find_checkpoint, open_checkpoint, pick_dtype
from mengya.runtime.device import init_device
from mengya.runtime.files import check_file
from mengya.runtime.folder_lock import hold_lock, say
from mengya.runtime.machine import commit_of_clone, hardware_name, package_versions
from mengya.runtime.typed_command import typed_command
from mengya.tokenizer.chat_template import chat_template_hash
from mengya.tokenizer.load import tokenizer_hash
from mengya.version import __version__

# The keys that decide a part of the results, other than those that hold for all of them.
_TEXT_KEYS = {"texts", "text_shards", "max_characters", "window"}
_DOMAIN_KEYS = {*_TEXT_KEYS, "domains"}
_EXAM_KEYS = {
    "exam_protocol", "num_fewshot", "chat_template", "subjects", "limit", "run_exam_code",
}  # fmt: skip
_OVERLAP_KEYS = {"answers_to", "max_references", "yardstick"}
_ONLY_IDENTITY = {"name", "author"}  # of the keys of yardsticks
Keys = set[str] | dict[str, set[str]]  # of EvaluateConfig, as `include` of pydantic takes them


def measure(
    config: EvaluateConfig, show_progress: bool = False, file: EvaluationFile | None = None
) -> Evaluation:
    """Everything that `config` asks for; prints nothing.

    Args:
        file: where each result is written as soon as it is measured, and where yardsticks come from that
            are measured already; None writes nothing.

    Raises:
        UserError: the checkpoint, texts, shards or exams cannot be used; a list was asked for.
    """
    if config.lists:
        raise UserError(config.lists)
    device = init_device(config.device, config.threads)
    dtype = pick_dtype(config.dtype, device)
    keep = _Keep(config, file, device, dtype)
    finished = {} if config.again else keep.finished()
    pending = [name for name in config.yardsticks if name not in finished]
    if not (config.needs_model or config.exams or pending):
        return Evaluation(str(config.checkpoint), yardsticks=finished)
    model, tokenizer = open_checkpoint(config.checkpoint, device, dtype)
    texts = _Texts(config, model, tokenizer, show_progress)
    text, by_position, domains = texts.measure(keep)
    passkey = _passkey(config, texts, keep, show_progress)
    preference = _preference(config, texts, keep, show_progress)
    yardsticks = {**domains, **finished}
    exams: dict[str, ExamResult] = {}
    if config.exams or config.long_context or config.answers_to or pending:
        folder = find_checkpoint(config.checkpoint)
        subject = Subject(model, tokenizer, folder, is_chat_model(model, tokenizer))
        yardsticks |= _yardsticks(config, subject, pending, keep, show_progress)
        exams = _exams(config, subject, keep, show_progress)
    return Evaluation(
        str(config.checkpoint), text, by_position, preference, passkey, exams, yardsticks
    )


@contextmanager
def open_file(config: EvaluateConfig) -> Iterator[EvaluationFile]:
    """The file that takes the results of a command, and what it says of their origin; no other process
    writes it meanwhile.

    Raises:
        UserError: the checkpoint cannot be read, what is there is no evaluation, or the file is locked or
            cannot be written.
    """
    folder = find_checkpoint(config.checkpoint)
    path = config.out or folder / FILE
    check_file(path)
    lock = path.with_name(f".{path.name}.mengya-lock")
    with hold_lock(lock, path, "evaluate", "out"):
        file = _file(config, folder, path)
        if file.dropped:
            say(f"{file.path}: the checkpoint has changed; dropped: {', '.join(file.dropped)}")
        yield file


def _file(config: EvaluateConfig, folder: Path, path: Path) -> EvaluationFile:
    device = init_device(config.device, config.threads)
    provenance = Provenance(
        command=typed_command("evaluate", config, "checkpoint", leave_out={"again"}),
        seed=config.seed,
        device=device.type,
        hardware=hardware_name(device),
        dtype=_name(pick_dtype(config.dtype, device)),
        versions=package_versions(),
        tokenizer_sha256=tokenizer_hash(folder),
        commit=commit_of_clone(),
        contamination=contamination_line(read_training_record(folder)),
    )
    return EvaluationFile(
        path,
        str(config.checkpoint),
        subject_sha256(folder),
        provenance,
        config.model_dump(mode="json", exclude={"again"}),
    )


class _Keep:
    """Called with a part of the results, writes it and the settings that decide it, where there is a file."""

    def __init__(
        self,
        config: EvaluateConfig,
        file: EvaluationFile | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._config, self.file = config, file
        self._place = {"mengya": __version__, "device": device.type, "dtype": _name(dtype)}

    def __call__(
        self, part: str, value: Any, keys: Keys, items: Sequence[dict[str, Any]] = ()
    ) -> None:
        if self.file is not None:
            self.file.keep(part, value, self._settings(keys), items)

    def yardstick(self, name: str, result: YardstickResult, keys: Keys) -> list[Measurement]:
        figures = [each.to_json() for each in result.measurements]
        self(f"yardsticks/{name}", figures, keys, result.items)
        return result.measurements

    def finished(self) -> dict[str, list[Measurement]]:
        """The yardsticks of the command that the file has with the same settings."""
        if self.file is None:
            return {}
        found = {
            name: self.file.finished(f"yardsticks/{name}", self._settings(_yardstick_keys(name)))
            for name in self._config.yardsticks
        }
        try:
            return {
                name: [Measurement.from_json(each) for each in figures]
                for name, figures in found.items()
                if figures is not None
            }
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self.file.path}: a figure is not what `mengya evaluate` writes ({error}); write "
                "again=true to measure it again"
            ) from error

    def _settings(self, keys: Keys) -> dict[str, Any]:
        return {**self._place, **self._config.model_dump(mode="json", include=keys)}


class _Texts:
    """The held-out text of a command, and what it costs the model."""

    def __init__(
        self,
        config: EvaluateConfig,
        model: CausalLM,
        tokenizer: PreTrainedTokenizerFast,
        show_progress: bool,
    ) -> None:
        self._config, self.model, self.tokenizer = config, model, tokenizer
        self._show_progress = show_progress
        self.tokenizer_sha256 = tokenizer_hash(find_checkpoint(config.checkpoint))

    def measure(
        self, keep: _Keep
    ) -> tuple[BitsPerChar | None, ByPosition | None, dict[str, list[Measurement]]]:
        """Over all, by position and by domain; None or empty where it was not asked for."""
        config = self._config
        text = by_position = None
        by_domain: list[DocumentCost] = []
        if config.has_text:
            documents = self._costs(self._texts())
            text = total_cost(documents)
            keep("text", asdict(text), _TEXT_KEYS, text_items(documents))
            by_domain += [document for document in documents if document.domain]
        for domain, sources in config.domains.items():
            by_domain += self._costs(self._of_domain(domain, sources))
        domains = {}
        if by_domain:
            result = bits_by_domain(by_domain, seed=config.seed)
            domains["bits_per_char"] = keep.yardstick("bits_per_char", result, _DOMAIN_KEYS)
        if config.positions is not None:
            # A second pass, which ends at the last document needed, so that no text is kept in memory.
            rows = document_ids(self.tokenizer, (found.text for found in self._texts()))
            by_position = nats_by_position(self.model, rows, config.positions)
            keep("by_position", asdict(by_position), {*_TEXT_KEYS, "positions"})
        return text, by_position, domains

    def _costs(self, texts: Iterator[HeldOutText]) -> list[DocumentCost]:
        measured = first_characters(texts, self._config.max_characters)
        found: list[DocumentCost] = []
        with progress_bar(self._show_progress, "held-out documents") as on_progress:
            for cost in document_costs(self.model, self.tokenizer, measured, self._config.window):
                found.append(cost)
                on_progress(len(found), None)
        return found

    def _texts(self) -> Iterator[HeldOutText]:
        files = read_texts(self._config.texts, BadLines(self._config.max_bad_lines))
        folders = self._config.text_shards
        shards = documents_of_shards(folders, self.tokenizer, self.tokenizer_sha256)
        return chain(map(HeldOutText, files), shards)

    def _of_domain(self, domain: str, sources: Sequence[TextSource]) -> Iterator[HeldOutText]:
        """The texts of one of `domains`, files and shard folders.

        Raises:
            UserError: a source cannot be read, or has no text.
        """
        bad_lines, count = BadLines(self._config.max_bad_lines), 0
        for source in sources:
            folder = Path(source.path)
            if (folder / MANIFEST).is_file():
                shards = documents_of_shards([folder], self.tokenizer, self.tokenizer_sha256)
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


def _passkey(
    config: EvaluateConfig, texts: _Texts, keep: _Keep, show_progress: bool
) -> list[PasskeyCell]:
    if config.passkey is None:
        return []
    with progress_bar(show_progress, "passkey"):
        cells = passkey_retrieval(texts.model, texts.tokenizer, config.passkey)
    keep("passkey", [asdict(cell) for cell in cells], {"passkey"})
    return cells


def _preference(
    config: EvaluateConfig, texts: _Texts, keep: _Keep, show_progress: bool
) -> PreferenceAccuracy | None:
    if config.preferences is None:
        return None
    shards = TokenShards(config.preferences)
    shards.require(
        "preference",
        tokenizer_sha256=texts.tokenizer_sha256,
        chat_template_sha256=chat_template_hash(texts.tokenizer),
    )
    items: list[dict[str, Any]] = []

    with progress_bar(show_progress, "preference pairs") as on_progress:

        def note(chosen_wins: bool) -> None:
            items.append({"part": "preference", "id": len(items), "score": int(chosen_wins)})
            on_progress(len(items), len(shards) // 2)

        accuracy = preference_accuracy(texts.model, pairs_of_shards(shards), note)
    keep("preference", asdict(accuracy), {"preferences"}, items)
    return accuracy


def _yardsticks(
    config: EvaluateConfig,
    subject: Subject,
    pending: Sequence[str],
    keep: _Keep,
    show_progress: bool,
) -> dict[str, list[Measurement]]:
    found = {}
    if config.long_context:
        with _watched(subject, "long_context", show_progress) as watched:
            result = long_context(watched, config.long_context)
        found["long_context"] = keep.yardstick("long_context", result, {"long_context"})
    if config.answers_to:
        with _watched(subject, "overlap", show_progress) as watched:
            result = _overlap(config, watched)
        found["overlap"] = keep.yardstick("overlap", result, _OVERLAP_KEYS)
    for name in pending:
        torch.manual_seed(config.yardstick.seed)  # whatever was measured before it
        with _watched(subject, name, show_progress) as watched:
            result = YARDSTICKS[name](watched, config.yardstick)
        found[name] = keep.yardstick(name, result, _yardstick_keys(name))
    return found


@contextmanager
def _watched(subject: Subject, title: str, show_progress: bool) -> Iterator[Subject]:
    """The subject with a bar of what is done."""
    with progress_bar(show_progress, title) as on_progress:
        yield replace(subject, on_progress=on_progress)


def _yardstick_keys(name: str) -> Keys:
    """The settings that decide a yardstick: a name of the model is nothing to the others."""
    keys = set(YardstickConfig.model_fields)
    return {"yardstick": keys if name == "identity" else keys - _ONLY_IDENTITY}


def _overlap(config: EvaluateConfig, subject: Subject) -> YardstickResult:
    assert config.answers_to is not None
    bad_lines = BadLines(config.max_bad_lines)
    sha256 = tokenizer_hash(subject.folder)
    references = list(read_references(config.answers_to, subject, sha256, bad_lines))
    if subject.chat and not references:
        raise UserError(
            f"answers_to={config.answers_to.path} holds no conversation whose last turn is an answer in text"
        )
    return overlap(subject, spread(references, config.max_references), config.yardstick)


def _exams(
    config: EvaluateConfig, subject: Subject, keep: _Keep, show_progress: bool
) -> dict[str, ExamResult]:
    """Every exam by every protocol that was asked for; what was answered before a crash is read again."""
    if not config.exams:
        return {}
    path = None if keep.file is None else keep.file.journal
    journal = Journal(path, model_digest(subject.model) if path else "")
    settings = ExamSettings(
        protocols=config.exam_protocol,
        num_fewshot=config.num_fewshot,
        chat_template=config.chat_template,
        subjects=config.subjects,
        limit=config.limit,
        batch_size=config.batch_size,
        run_code=config.run_exam_code,
    )
    exams: dict[str, ExamResult] = {}
    for exam in config.exams:
        asked = ask_exam(subject, exam, settings, journal, show_progress)
        name = exam_name(ExamSource(path=exam)) if is_path(exam) else exam
        name = exam if any(key.split("/")[0] == name for key in exams) else name
        for protocol, (result, items) in asked.items():
            key = name if len(asked) == 1 else f"{name}/{protocol}"
            exams[key] = result
            keep(f"exams/{key}", asdict(result), _EXAM_KEYS, items)
    journal.remove()
    return exams


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

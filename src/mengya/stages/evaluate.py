"""`mengya evaluate CHECKPOINT`: bits per character, by position too, exams, preferences, passkeys.

`measure` gives the numbers, for other stages; `run` also prints and saves them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

from pydantic import Field, model_validator
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerFast

from mengya.config import Config, OneOrMany
from mengya.data.ingest.records import BadLines
from mengya.data.ingest.texts import TextSource, read_texts
from mengya.data.shards import TokenShards
from mengya.evaluation.bits_per_char import BitsPerChar, bits_per_char
from mengya.evaluation.by_position import ByPosition, nats_by_position
from mengya.evaluation.multiple_choice import MultipleChoice, Score, multiple_choice
from mengya.evaluation.passkey import PasskeyCell, PasskeyConfig, passkey_retrieval
from mengya.evaluation.preference import PreferenceAccuracy, pairs_of_shards, preference_accuracy
from mengya.models.hf.open_checkpoint import (
    DtypeName,
    find_checkpoint,
    open_checkpoint,
    pick_dtype,
    standard_folder,
)
from mengya.runtime.device import DeviceName, pick_device
from mengya.runtime.files import write_text
from mengya.tokenizer.load import document_token_id, encode_texts, tokenizer_hash


class EvaluateConfig(Config):
    checkpoint: Path
    """Model folder, adapter folder, or run folder (its best, else latest, checkpoint)."""
    texts: OneOrMany[TextSource] = []
    """Held-out text for bits per character; a plain path stands for {path: ...}."""
    text_shards: OneOrMany[Path] = []
    """Held-out text as shards, such as OUT/validation of `mengya prepare`, made with this checkpoint's
    tokenizer; counted together with texts."""
    max_characters: int | None = Field(default=None, ge=1)
    """Stop reading texts after about so many characters; null reads all."""
    window: int | None = Field(default=None, ge=1)
    """Longest context in tokens for bits per character; null takes the model's."""
    max_bad_lines: int = Field(default=0, ge=0)
    """Unreadable lines of the texts to pass over before giving up."""
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
    """Also nats per token by position, up to this one (beyond the model's context, to see it fail), over
    the first 64 documents of the texts that are so long; null: not."""
    passkey: PasskeyConfig | None = None
    """Whether a key is found again by length and depth; passkey={} takes the defaults."""
    device: DeviceName = "auto"
    """auto takes CUDA where there is one."""
    dtype: DtypeName = "auto"
    """dtype of the weights; auto: float32 on CPU, bfloat16 elsewhere."""
    out: Path | None = None
    """JSON file for the numbers; null: evaluation.json in the checkpoint folder."""

    @model_validator(mode="after")
    def _something(self) -> EvaluateConfig:
        has_text = bool(self.texts or self.text_shards)
        if not (has_text or self.exams or self.preferences or self.passkey):
            raise ValueError(
                "nothing to measure: give texts=FILE, text_shards=SHARDS, exams=FOLDER, "
                "preferences=SHARDS or passkey={} (or several)"
            )
        if self.positions is not None and not has_text:
            raise ValueError(
                f"positions={self.positions} needs texts=FILE or text_shards=SHARDS to measure on"
            )
        return self


@dataclass(frozen=True)
class Evaluation:
    """What was measured; None or empty where it was not asked for. exams: by folder name,
    by path where two have the same name."""

    checkpoint: str
    text: BitsPerChar | None = None
    by_position: ByPosition | None = None
    preference: PreferenceAccuracy | None = None
    passkey: list[PasskeyCell] = field(default_factory=list)
    exams: dict[str, MultipleChoice] = field(default_factory=dict)


def measure(config: EvaluateConfig, show_progress: bool = False) -> Evaluation:
    """All that `config` asks for, nothing printed or written."""
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    text = by_position = preference = None
    passkey: list[PasskeyCell] = []
    if config.texts or config.text_shards or config.preferences or config.passkey:
        model, tokenizer = open_checkpoint(config.checkpoint, device, dtype)
        sha256 = tokenizer_hash(find_checkpoint(config.checkpoint))
        if config.texts or config.text_shards:
            texts = chain(
                read_texts(config.texts, BadLines(config.max_bad_lines)),
                _texts_of_shards(config, tokenizer, sha256),
            )
            text = bits_per_char(
                model, tokenizer, _at_most(texts, config.max_characters), config.window
            )
        if config.positions is not None:
            texts = chain(
                read_texts(config.texts, BadLines(config.max_bad_lines)),
                _texts_of_shards(config, tokenizer, sha256),
            )
            documents = _documents(tokenizer, texts)
            by_position = nats_by_position(model, documents, config.positions)
        if config.passkey:
            passkey = passkey_retrieval(model, tokenizer, config.passkey)
        if config.preferences:
            shards = TokenShards(config.preferences)
            shards.require("preference", tokenizer_sha256=sha256)
            preference = preference_accuracy(model, pairs_of_shards(shards))
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
    return Evaluation(str(config.checkpoint), text, by_position, preference, passkey, exams)


def run(config: EvaluateConfig) -> None:
    result = measure(config, show_progress=sys.stderr.isatty())
    out = config.out or find_checkpoint(config.checkpoint) / "evaluation.json"
    values = {**asdict(result), "config": config.model_dump(mode="json")}
    write_text(out, json.dumps(values, ensure_ascii=False, indent=2) + "\n")
    console = Console()
    console.print(_table(result))
    Console(stderr=True).print(f"written to {out}", highlight=False, markup=False)


def _texts_of_shards(
    config: EvaluateConfig, tokenizer: PreTrainedTokenizerFast, sha256: str
) -> Iterator[str]:
    """The documents of text shards without the document token at both ends."""
    for folder in config.text_shards:
        shards = TokenShards(folder)
        shards.require("text", tokenizer_sha256=sha256)
        for document in range(len(shards)):
            ids = shards.tokens(document)[1:-1].tolist()
            yield str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _documents(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Iterator[list[int]]:
    """Ids of each text between document tokens, as in training."""
    edge = [document_token_id(tokenizer)]
    for text in texts:
        yield [*edge, *encode_texts(tokenizer, [text])[0], *edge]


def _at_most(texts: Iterable[str], max_characters: int | None) -> Iterator[str]:
    characters = 0
    for text in texts:
        yield text
        characters += len(text)
        if max_characters is not None and characters >= max_characters:
            return


def _table(result: Evaluation) -> Table:
    table = Table(title=result.checkpoint.replace("[", r"\["), title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("of")
    if text := result.text:
        of = f"{text.characters:,} characters, {text.documents:,} documents"
        if text.unknown_tokens:
            of += f"; {text.unknown_tokens:,} unknown tokens: not comparable"
        table.add_row("bits per character", f"{text.bits_per_char:.4f}", "", of)
        table.add_row("nats per token", f"{text.nats_per_token:.4f}", "", f"{text.tokens:,} tokens")
    if by_position := result.by_position:
        for start in range(0, len(by_position.nats), 4):
            nats = sum(by_position.nats[start : start + 4]) / 4
            first, last = start * by_position.width, (start + 4) * by_position.width
            of = f"{by_position.documents:,} documents"
            table.add_row(f"nats per token at {first:,} to {last:,}", f"{nats:.4f}", "", of)
    for cell in result.passkey:
        low, high = cell.interval
        name = f"passkey in {cell.length:,} tokens, depth {cell.depth:.0%}"
        interval = f"{low:.1%} to {high:.1%}"
        table.add_row(name, f"{cell.accuracy:.1%}", interval, f"{cell.samples:,} keys")
    if preference := result.preference:
        of = f"{preference.pairs:,} pairs, mean log p a token; {preference.accuracy_by_sum:.1%} by sum"
        low, high = preference.interval
        table.add_row(
            "preference accuracy", f"{preference.accuracy:.1%}", f"{low:.1%} to {high:.1%}", of
        )
    for name, exam in result.exams.items():
        style = "chat" if exam.chat_template else "text"
        for subject, score in exam.subjects.items() if len(exam.subjects) > 1 else ():
            _add_score(table, f"{name}: {subject}", score, "")
        what = f", {exam.num_fewshot}-shot as {style}; chance {exam.chance:.0%}"
        if exam.cut_prompts:
            what += f"; {exam.cut_prompts} prompts cut to the context"
        _add_score(table, f"{name} accuracy", exam.overall, what)
    return table


def _add_score(table: Table, name: str, score: Score, more: str) -> None:
    low, high = score.interval
    table.add_row(
        name.replace("[", r"\["),
        f"{score.accuracy:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{score.questions:,} questions{more}",
    )

"""README.md of an exported folder: the model card, from what is known of the run and nothing else.

Takes facts; gives Markdown with the hub's YAML header. Strings that come from files or from the user are
escaped; what is not known is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from mengya.errors import UserError
from mengya.export.card.config import CardConfig
from mengya.export.card.lineage import Lineage, lineage_of
from mengya.export.card.results import ResultRow, read_results
from mengya.export.format import Usage
from mengya.export.parity.result import Parity
from mengya.export.parity.tables import Language, parity_markdown
from mengya.export.source import Source
from mengya.models.config.model import ModelConfig
from mengya.models.hf.config import CLASSES
from mengya.runtime.files import write_text
from mengya.text.markdown import escape_markdown, markdown_table
from mengya.tokenizer.chat_template import chat_template_of
from mengya.version import __version__

FILE = "README.md"
_MAX_FILES = 8
_UNKNOWN = {"en": "unknown", "zh": "未知"}
_LABELS = {
    "en": {"text/bits_per_char": "bits per character", "preference": "preference accuracy"},
    "zh": {"text/bits_per_char": "每字符比特数", "preference": "偏好准确率"},
}


@dataclass(frozen=True)
class Written:
    """What was exported, in the words of its format.

    Attributes:
        form: such as "gguf Q4_0".
        parameters, active: of the model; active ones of a token, where they are fewer.
    """

    form: str
    parameters: int
    active: int
    usage: Sequence[Usage]
    library_name: str | None = None
    tags: Sequence[str] = ()


def write_card(
    config: CardConfig, source: Source, written: Written, parity: Parity, directory: Path
) -> None:
    """Write README.md into the folder.

    Raises:
        UserError: the file of `about` cannot be read.
    """
    body = _environment().get_template(f"card.{config.language}.md.jinja")
    text = body.render(_facts(config, source, written, parity, directory)).lstrip()
    card = ModelCard(f"---\n{_header(config, source, written).to_yaml()}\n---\n{text}")
    write_text(directory / FILE, str(card))


def _facts(
    config: CardConfig, source: Source, written: Written, parity: Parity, directory: Path
) -> dict[str, Any]:
    """What the templates show."""
    lineage, language = lineage_of(source.folder), config.language
    chat, results = _is_chat(source, lineage), read_results(source.folder)
    special = sum(token.special for token in source.tokenizer.added_tokens_decoder.values())
    return {
        "name": config.name or _name(source.folder, lineage),
        "about": read_about(config.about),
        "license": config.license or _UNKNOWN[language],
        "written": written,
        "usage": [each for each in written.usage if each.chat is None or each.chat == chat],
        "chat": chat,
        "sampling": source.sampling,
        "class_name": CLASSES[source.model.config.model_type],
        "shape": _shape(source.model.config),
        "context": source.model.config.context_length,
        "tokens": len(source.tokenizer),
        "special": special,
        "files": [(name, f"{size:,}") for name, size in _files(directory)],
        "training": _training_rows(lineage, language),
        "data": _data_rows(lineage, language),
        "base": lineage.base,
        "quantized": lineage.quantized,
        "missing_shards": sum(run.missing_shards for run in lineage.runs),
        "results": _result_rows(results, language),
        "parity": parity,
        "parity_table": parity_markdown(parity, language),
        "version": __version__,
    }


def _header(config: CardConfig, source: Source, written: Written) -> ModelCardData:
    own = ("mengya", source.model.config.model_type, *written.tags, *config.tags)
    return ModelCardData(
        language=config.languages or None,
        license=config.license or "unknown",
        base_model=config.base_model,
        pipeline_tag="text-generation",
        library_name=written.library_name,
        tags=list(dict.fromkeys(own)),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mengya.export.card", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": escape_markdown, "number": lambda value: f"{value:,}"}
    environment.globals["table"] = markdown_table
    return environment


def _training_rows(lineage: Lineage, language: Language) -> list[list[str]]:
    """The first run first."""
    return [
        [
            run.name,
            (run.verb or _UNKNOWN[language]) + (f" (LoRA, r = {run.lora})" if run.lora else ""),
            *(
                _figure(value, language)
                for value in (
                    run.step, run.tokens, run.batch, run.sequence_length, run.learning_rate, run.loss,
                    run.validation_bits_per_char,
                )
            ),
        ]
        for run in reversed(lineage.runs)
    ]  # fmt: skip


def _data_rows(lineage: Lineage, language: Language) -> list[list[str]]:
    unknown = _UNKNOWN[language]
    return [
        [
            run.name,
            source.name,
            source.license or unknown,
            _file_list(source.files) or unknown,
            _figure(source.documents, language),
            _figure(source.tokens, language),
        ]
        for run in reversed(lineage.runs)
        for source in run.sources
    ]


def _result_rows(results: Sequence[ResultRow], language: Language) -> list[list[str]]:
    labels = _LABELS[language]
    return [
        [
            labels.get(row.measure, row.measure.removeprefix("exam/")), row.value, row.interval,
            f"{row.items:,}", row.note,
        ]
        for row in results
    ]  # fmt: skip


def _figure(value: float | None, language: Language) -> str:
    if value is None:
        return _UNKNOWN[language]
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _file_list(files: Sequence[tuple[str, str]]) -> str:
    """The first ones, with enough of their hashes to tell them apart."""
    some = [f"{name} ({sha256[:12]})" for name, sha256 in files[:_MAX_FILES]]
    more = [f"+ {len(files) - _MAX_FILES}"] if len(files) > _MAX_FILES else []
    return ", ".join([*some, *more])


def _name(folder: Path, lineage: Lineage) -> str:
    return lineage.runs[0].name if lineage.runs else folder.resolve().name


def read_about(path: Path | None) -> str:
    """The user's own Markdown.

    Raises:
        UserError: it is not text.
    """
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"card.about={path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"card.about={path} is not text in UTF-8: {error}") from error


def _files(directory: Path) -> list[tuple[str, int]]:
    """Name and bytes of what was written, hidden files left out."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    named = sorted((str(path.relative_to(directory)), path.stat().st_size) for path in files)
    return [(name, size) for name, size in named if not name.startswith(".")]


def _shape(config: ModelConfig) -> list[tuple[str, Any]]:
    """Fields of config.json that say how large it is."""
    names = ["num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads"]
    names += ["num_key_value_heads", "vocab_size", "tie_word_embeddings"]
    shape = [(name, getattr(config, name)) for name in names]
    if config.num_experts:
        experts = ("num_experts", "num_experts_per_tok", "n_shared_experts")
        shape += [(name, getattr(config, name)) for name in experts]
    rope = config.rope_parameters.rope_type
    return [
        *shape,
        ("head_dim", config.head_width),
        ("rope_theta", config.rope_theta),
        ("rope_type", rope),
    ]


def _is_chat(source: Source, lineage: Lineage) -> bool:
    """Trained on conversations; where nothing is known of training: whether it has a chat template."""
    verbs = {run.verb for run in lineage.runs}
    if verbs & {"sft", "dpo"}:
        return True
    if verbs and lineage.base is None:
        return False
    try:
        return bool(chat_template_of(source.tokenizer))
    except UserError:
        return False

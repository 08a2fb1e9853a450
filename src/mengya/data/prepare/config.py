"""The settings of `mengya prepare`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator
from rich.console import Console

from mengya.config import Config, OneOrMany, PathConfig
from mengya.data.exams.config import ContaminationConfig
from mengya.data.hub.corpus import HubKey
from mengya.data.hub.reference import is_hub
from mengya.data.ingest.reading.encoding import AUTO
from mengya.data.prepare.encoding.own_filters import check_path
from mengya.runtime.device import DeviceName
from mengya.text.clean import CleanConfig
from mengya.text.filters.config import FilterConfig
from mengya.text.near_duplicates.config import NearDuplicateConfig
from mengya.text.repeated_text.config import RepeatedTextConfig

REQUEST = "prepare.json"  # in OUT: what it was made of


class PrepareSource(PathConfig):
    path: str | list[str]
    """A file, a folder or a glob, or a list of them; or a public data set: hub:NAME of `mengya data list`,
    or hub:OWNER/NAME, each with @REVISION and :FILES behind where wanted. Its license, format, field and
    columns are those of the registry unless given here."""
    name: str | None = None
    """The name in the table and the manifest; without it every file is a source of its own."""
    format: str | None = None
    """Form of the records, detected from their fields when not given; docs/data_format.md lists the names."""
    field: str | list[str] = "text"
    """For kind=text: the field that holds the text; several are joined by line breaks."""
    columns: dict[str, str] = {}
    """Own names of the fields that a format knows, for example {prompt: 问题, response: 回答}."""
    encoding: str = AUTO
    """Encoding of the files, for example gb18030; auto finds UTF-8, UTF-16, gb18030 and big5 for each."""
    split_text: Literal["file", "line", "blank_line"] = "file"
    """What is one document in .txt and .md files: the file, a line, or the lines between blank lines."""
    license: str | None = None
    """Noted in the manifest, for example Apache-2.0."""
    limit: int | None = Field(default=None, ge=1)
    """Read only so many records; of hub:NAME no more is downloaded than they need."""
    limit_bytes: int | None = Field(default=None, ge=1)
    """For hub:NAME: only so many bytes of records."""
    limit_tokens: int | None = Field(default=None, ge=1)
    """For hub:NAME: only so many tokens."""
    hub: HubKey | None = None
    """For hub:NAME: where from; without it MENGYA_HUB, else the first hub that has it."""
    _origin: dict[str, Any] | None = PrivateAttr(default=None)

    @property
    def title(self) -> str:
        """The given name, or that of the first path without its suffixes."""
        first = self.path if isinstance(self.path, str) else self.path[0]
        return self.name or Path(first).name.split(".")[0] or first

    @property
    def origin(self) -> dict[str, Any] | None:
        """Hub, name and revision of files that came from a hub."""
        return self._origin

    def fetched(self, origin: dict[str, Any], **known: Any) -> PrepareSource:
        """The same source with the files that came for it, and what is known of them."""
        local = self.model_copy(update=known)
        local._origin = origin
        return local

    @model_validator(mode="after")
    def _hub_alone(self) -> PrepareSource:
        paths = [self.path] if isinstance(self.path, str) else self.path
        if not any(map(is_hub, paths)):
            given = [
                key
                for key in ("limit_bytes", "limit_tokens", "hub")
                if getattr(self, key) is not None
            ]
            if given:
                raise ValueError(
                    f"{given[0]} is for a path hub:NAME; leave it out, or write limit=N"
                )
        elif len(paths) > 1:
            raise ValueError("a path hub:NAME is a source of its own; write one source each")
        return self

    @model_validator(mode="before")
    @classmethod
    def _old_spelling(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "licence" not in value or "license" in value:
            return value
        say_license()
        return {"license" if key == "licence" else key: given for key, given in value.items()}

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "".encode("utf-8" if value == AUTO else value)
        except LookupError:
            raise ValueError(
                f"{value!r} is not an encoding that Python knows; try utf-8 or gb18030"
            ) from None
        return value


@cache
def say_license() -> None:
    """Once a process: a recipe may have many sources."""
    Console(stderr=True).print(
        "the key `licence` of a source is now `license`; the next version refuses the old spelling",
        soft_wrap=True,
        highlight=False,
    )


class PerplexityFilter(Config):
    """Drop text that a model of your own finds too hard to predict, or too easy."""

    checkpoint: Path
    """Model folder, adapter folder, or run folder of a base model; it need not have the tokenizer that is
    prepared for."""
    min_bits_per_char: float | None = Field(default=None, ge=0)
    """Drop what takes fewer bits per character, such as endless repetition."""
    max_bits_per_char: float | None = Field(default=None, gt=0)
    """Drop what takes more bits per character, such as garbage or a foreign language."""
    max_tokens: int = Field(default=512, ge=8)
    """Only the first so many tokens of a text are predicted, at most the context of the model."""
    device: DeviceName = "auto"
    """auto: CUDA where there is a GPU, else the CPU."""

    @model_validator(mode="after")
    def _bounds(self) -> PerplexityFilter:
        low, high = self.min_bits_per_char, self.max_bits_per_char
        if low is None and high is None:
            raise ValueError(
                "nothing would be dropped: give max_bits_per_char=X or min_bits_per_char=X; "
                "`mengya evaluate` measures what text of yours takes"
            )
        if low is not None and high is not None and low >= high:
            raise ValueError(f"min_bits_per_char {low} must be below max_bits_per_char {high}")
        return self


class PrepareFilters(FilterConfig):
    """The filters of texts, and those that need more than a text."""

    own: OneOrMany[str] = []
    """Functions of your own, MODULE:FUNCTION, such as my_filters:no_poems in my_filters.py of the current
    folder. Each takes a text and gives None to keep it, or a word that says why it is dropped."""
    perplexity: PerplexityFilter | None = None
    """Bounds on the bits per character that a base model of yours needs."""

    @field_validator("own")
    @classmethod
    def _import_paths(cls, value: list[str]) -> list[str]:
        return [check_path(path) for path in value]


class PrepareConfig(Config):
    out: Path
    """Folder to write; with validation_fraction above 0 the shards are in OUT/train and OUT/validation."""
    kind: Literal["text", "conversation", "preference"] = "text"
    """What the records are: text for pretraining, conversations for SFT, preference pairs for DPO."""
    tokenizer: Path
    """A tokenizer folder."""
    sources: OneOrMany[PrepareSource] = Field(min_length=1)
    """What to read; a plain path stands for {path: ...}."""
    clean: CleanConfig = CleanConfig()
    filters: PrepareFilters = PrepareFilters()
    """Edits of texts, and filters that drop them and give the reason; `standard` switches on all that suit
    Chinese text from the web."""
    fill: dict[str, str] = {}
    """Replace placeholders in every text before anything else, for example
    {"<NAME>": 小雅, "{{author}}": 李明}."""
    placeholders: Literal["warn", "drop"] = "warn"
    """For conversations and preferences: what is done about unfilled placeholders, such as <NAME>, {{author}}
    or [姓名], in answers that are learned: say how many there are, or also drop these samples."""
    report: bool = True
    """Write report.html and data_report.json: what was dropped and edited, with examples."""
    contamination: ContaminationConfig | None = None
    """Look for exam items, in all turns of a chat: {exams: [FOLDER, ...]}. What is found is in
    OUT/contamination.jsonl and the manifest, goes into the checkpoints trained on it, and `mengya evaluate`
    shows results without it."""
    train_on: Literal["all_turns", "last_turn"] = "all_turns"
    """For conversations: the assistant turns that are learned. A turn with `weight`, `loss`, `train` or
    `loss_mask` of 0 or false never is."""
    dedup: bool | Literal["exact"] = True
    """Keep only the first of samples that are equal but for white space (the indentation of lines counts)
    and case, over all sources; exact: that are equal to the letter."""
    repeated_text: RepeatedTextConfig | None = None
    """For kind=text: remove passages that stand in an earlier document too, over all sources. Everything is
    read twice for that."""
    near_duplicates: NearDuplicateConfig = NearDuplicateConfig()
    """What is done with samples that nearly equal an earlier one, over all sources."""
    validation_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Hold out about this part, chosen by the hash of a document or of the first question of a chat."""
    max_bad_lines: int = Field(default=100, ge=0)
    """Skip up to so many lines of a source that cannot be read or do not fit, then refuse."""
    max_bad_share: float = Field(default=0.0, ge=0, lt=1)
    """Where that allows more: skip up to this share of the lines of a source, counted at its end."""
    skip_unknown_files: bool = False
    """Leave out files none of whose first records fits; without it they are refused before any work."""
    registry: Path | None = None
    """A file of data sets for hub:NAME besides those of `mengya data list`; its entries win."""
    workers: int = Field(default=0, ge=0)
    """Processes; 0 takes one for every processor. The result is the same for any number."""
    cluster: str | None = None
    """Work on the machines of a Dask cluster: the scheduler's address (tcp://10.0.0.1:8786) or its scheduler
    file. The result is the same; `workers` is not used then."""
    overwrite: bool = False
    """Replace OUT when it was made with other settings, or its shards are damaged or have no checksums.

    Only shards that `mengya prepare` wrote are replaced."""

    @field_validator("fill")
    @classmethod
    def _no_empty_placeholder(cls, value: dict[str, str]) -> dict[str, str]:
        if "" in value:
            raise ValueError("an empty text cannot be replaced; name a placeholder such as <NAME>")
        return value

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
        if self.repeated_text is not None and self.kind != "text":
            raise ValueError(
                f"repeated_text is for kind=text, not kind={self.kind}: a chat without some of its lines is "
                "broken; leave it out"
            )
        if self.cluster is not None and self.workers:
            raise ValueError(
                f"workers={self.workers} is for this machine; leave it out with cluster="
            )
        if self.train_on != "all_turns" and self.kind != "conversation":
            raise ValueError(
                f"train_on is for kind=conversation, not kind={self.kind}; leave it out"
            )
        if self.placeholders != "warn" and self.kind == "text":
            raise ValueError(
                f"placeholders={self.placeholders} is for chats, not kind=text; leave it out"
            )
        return self

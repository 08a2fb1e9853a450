"""What `mengya evaluate` and `mengya report` measure: the keys, and what they rule out."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt, model_validator

from mengya.config import Config, OneOrMany
from mengya.data.ingest.texts import TextSource
from mengya.evaluation.answers.references.held_out import ReferenceSource
from mengya.evaluation.exams.benchmarks import Protocol, benchmark_list, find_benchmark
from mengya.evaluation.exams.exam import is_path
from mengya.evaluation.long_context.config import LongContextConfig
from mengya.evaluation.long_context.passkey import PasskeyConfig
from mengya.evaluation.registry import YARDSTICKS, yardstick_list
from mengya.evaluation.yardstick import YardstickConfig
from mengya.models.hf.open_checkpoint import DtypeName
from mengya.runtime.device import DeviceName


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
    long_context: LongContextConfig | None = None
    """Documents, questions and LongBench-style tasks by length bucket; long_context={} asks the questions."""
    answers_to: ReferenceSource | None = None
    """Held-out conversations, in any format that `mengya prepare` reads, or conversation shards: how much
    greedy answers overlap with the last turn of each (token-F1, ROUGE-L, BLEU, chrF); extra `eval`."""
    max_references: int = Field(default=200, ge=1)
    """Conversations of answers_to that are asked, spread evenly over them."""
    yardsticks: OneOrMany[str] = []
    """Fixed sets that ship with mengya, by name: pairs, loops, reference_text ...; yardsticks=list shows
    all."""
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
        for name in ("yardstick", "passkey", "long_context"):
            section = getattr(self, name)
            if section is not None and "seed" not in section.model_fields_set:
                setattr(self, name, section.model_copy(update={"seed": self.seed}))
        return self

    @model_validator(mode="after")
    def _measures_something(self) -> EvaluateConfig:
        if not (self.needs_model or self.yardsticks or self.exams):
            raise ValueError(
                "nothing to measure: give texts=FILE, text_shards=SHARDS, domains.NAME=FILE, exams=NAME or "
                "FOLDER, preferences=SHARDS, passkey={}, long_context={}, answers_to=FILE or yardsticks=NAME "
                "(or several)"
            )
        if self.lists:
            return self
        unknown = [name for name in self.yardsticks if name not in YARDSTICKS]
        if unknown:
            raise ValueError(
                f"yardsticks={unknown[0]} is not one of {', '.join(YARDSTICKS) or 'none yet'}"
            )
        for exam in self.exams:
            if not is_path(exam):
                find_benchmark(exam)
        if self.positions is not None and not self.has_text:
            raise ValueError(
                f"positions={self.positions} needs texts=FILE or text_shards=SHARDS to measure on"
            )
        return self

    @property
    def lists(self) -> str:
        """What exams=list and yardsticks=list ask for; empty where neither was typed."""
        if self.exams == ["list"]:
            return benchmark_list()
        return yardstick_list() if self.yardsticks == ["list"] else ""

    @property
    def has_text(self) -> bool:
        return bool(self.texts or self.text_shards)

    @property
    def needs_model(self) -> bool:
        """Whether anything is measured but exams and yardsticks, which may be finished already."""
        others = (self.domains, self.preferences, self.passkey, self.long_context, self.answers_to)
        return self.has_text or any(other is not None and other != {} for other in others)

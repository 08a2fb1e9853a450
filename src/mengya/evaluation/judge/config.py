"""The settings of `mengya judge`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt

from mengya.config import Config, OneOrMany
from mengya.endpoint.config import EndpointConfig, Sampling
from mengya.models.hf.open_checkpoint import DtypeName
from mengya.runtime.device import DeviceName


class JudgeSampling(Sampling):
    max_tokens: int = Field(default=512, ge=1)
    """Tokens of one reply at most; the cost cap counts on it. A judge that reasons first needs more."""
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    """0 takes the likeliest token, so that the same pair has the same verdict as far as the endpoint can."""


class JudgeEndpoint(EndpointConfig):
    """The judge: an OpenAI-compatible endpoint (`POST BASE_URL/chat/completions`)."""

    sampling: JudgeSampling = JudgeSampling()  # pyright: ignore[reportIncompatibleVariableOverride]


class AnswerConfig(Config):
    """How checkpoints answer the questions; answers in files are taken as they are."""

    temperature: float | None = Field(default=None, gt=0)
    """null takes the likeliest token each time."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Longest answer in tokens; less where the model's context is shorter."""
    seed: int = Field(default=0, ge=0)
    """Of drawn answers."""


class JudgeConfig(Config):
    sides: OneOrMany[Path]
    """The two that are compared: each a checkpoint, which answers the questions, or a file of answers, with
    `question` and `answer` in every record."""
    out: Path
    """Folder to write: judge.json, judge.md, records.jsonl, answers_*.jsonl of checkpoints, and
    .requests.jsonl, the ledger of paid replies."""
    questions: str | None = None
    """File of questions, with `question` (or `messages`) in every record, maybe `id`, `category` and
    `reference`; builtin: the 24 that ship with mengya. null: those of the first file of answers, builtin
    where both sides are checkpoints."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many questions, spread evenly; for a quick look. null takes all."""
    rounds: int = Field(default=1, ge=1, le=8)
    """How often each pair is judged in both orders; a second time shows whether the judge repeats itself."""
    max_answer_characters: int = Field(default=2000, ge=100)
    """Of a longer answer the judge sees the beginning, and is shown that it is cut."""
    prompt: Path | None = None
    """Your own prompt in the place of ours (src/mengya/evaluation/judge/prompt.md)."""
    answers: AnswerConfig = AnswerConfig()
    endpoint: JudgeEndpoint = JudgeEndpoint()
    device: DeviceName = "auto"
    """auto: CUDA where there is a GPU, else the CPU."""
    threads: PositiveInt | None = None
    """CPU threads that share a computation of torch; null: torch's own choice, OMP_NUM_THREADS or else one
    a core."""
    dtype: DtypeName = "auto"
    """dtype of the weights; auto: float32 on CPU, bfloat16 elsewhere."""
    max_bad_lines: int = Field(default=0, ge=0)
    """Unreadable lines of files to skip before giving up."""
    overwrite: bool = False
    """Judge again where other settings were used; paid replies are used again."""

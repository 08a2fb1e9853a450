"""What an exam gave: scores by subject and category, next to chance, with the words that belong to them."""

from __future__ import annotations

from dataclasses import dataclass, field

from mengya.evaluation.exams.benchmarks import Protocol
from mengya.evaluation.exams.contamination import ExamContamination
from mengya.evaluation.score import Score


@dataclass(frozen=True)
class ExamResult:
    """overall counts every question once, macro_accuracy every subject once.

    Attributes:
        title: of the benchmark.
        metric: what `overall` is the mean of, as the harness names it.
        categories: {} where the benchmark has none.
        chance: what guessing gives, on average over the questions: one of the options; of written answers
            the commonest one, always. None where nobody can say (IFEval).
        above_chance: whether all of the interval is above it.
        cut_prompts: questions whose prompt was longer than the model's context and was truncated on the left.
        contamination: the score without questions that the training data hold.
        others: the other metrics of the same answers, metric or metric/filter -> mean.
        note: what of the exam was not asked; "" where all was.
    """

    title: str
    protocol: Protocol
    metric: str
    overall: Score
    macro_accuracy: float
    subjects: dict[str, Score]
    categories: dict[str, Score]
    chance: float | None
    above_chance: bool | None
    num_fewshot: int
    chat_template: bool
    cut_prompts: int
    contamination: ExamContamination
    others: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def verdict(self) -> str:
        """Chance, and how the score stands to it, in words."""
        if self.chance is None:
            return "chance not known"
        return f"chance {self.chance:.0%}, {'above' if self.above_chance else 'not above'} chance"

"""What the harness logged of an exam -> its result, and one record an item.

Takes the harness's samples by subject; scores each item by the benchmark's metric. Knows no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mengya.data.exams.folders import CEVAL, CMMLU
from mengya.data.exams.items import ExamPart, item_of, item_of_record
from mengya.data.training_record import TrainedOn
from mengya.evaluation.exams.benchmarks import BENCHMARKS, Benchmark, Protocol
from mengya.evaluation.exams.categories import CATEGORIES
from mengya.evaluation.exams.contamination import Answer, without_contaminated
from mengya.evaluation.exams.result import ExamResult
from mengya.evaluation.score import Score, score_of
from mengya.text.contamination.items import Item, item_keys

Sample = dict[str, Any]
Samples = Mapping[str, Sequence[Sample]]
"""By subject (by task, as the harness gives them); a question comes once for every filter."""

_LAYOUTS = {"ceval": CEVAL, "cmmlu": CMMLU}


@dataclass(frozen=True)
class Answered:
    """Attributes:
    parts: by subject, as prepare's contamination check knows it; None where it cannot.
    cut_prompts: prompts that were longer than the model's context.
    note: what of the exam was not asked.
    """

    samples: Samples
    parts: Mapping[str, ExamPart | None]
    cut_prompts: set[str]
    num_fewshot: int
    note: str


def summarize(
    name: str,
    protocol: Protocol,
    answered: Answered,
    chat_template: bool,
    record: Sequence[TrainedOn] | None,
) -> tuple[ExamResult, list[Sample]]:
    """The result, and a record an item."""
    benchmark = BENCHMARKS[name]
    metric = _metric(benchmark, protocol)
    scored = {
        subject: [each for each in samples if each["filter"] == benchmark.filter]
        for subject, samples in answered.samples.items()
    }
    values = {subject: [float(s[metric]) for s in rows] for subject, rows in scored.items()}
    every = [sample for rows in scored.values() for sample in rows]
    overall = score_of([value for each in values.values() for value in each])
    subjects = {subject: score_of(each) for subject, each in values.items()}
    chance = None  # what instructions a careless text follows is not known
    if name != "ifeval":
        chance = sum(_chances(rows) for rows in scored.values()) / len(every)
    answers = _answers(name, scored, values, answered.parts)
    result = ExamResult(
        title=benchmark.title,
        protocol=protocol,
        metric=metric,
        overall=overall,
        macro_accuracy=fmean(score.accuracy for score in subjects.values()),
        subjects=subjects,
        categories=_categories(name, scored, values),
        chance=chance,
        above_chance=None if chance is None else overall.interval[0] > chance,
        num_fewshot=answered.num_fewshot,
        chat_template=chat_template,
        cut_prompts=sum(s["arguments"][0][0] in answered.cut_prompts for s in every),
        contamination=without_contaminated(record, answers),
        others=_others(answered.samples, benchmark, metric),
        note=answered.note,
    )
    return result, [
        _item(subject, sample, value)
        for subject, rows in scored.items()
        for sample, value in zip(rows, values[subject], strict=True)
    ]


def item_of_doc(name: str, doc: Mapping[str, Any]) -> Item | None:
    """The item of a row as the harness gives it back: that of the file or folder it came from."""
    if name in _LAYOUTS:
        return item_of(doc, _LAYOUTS[name])
    if name == "mmlu":
        return Item(doc["question"], tuple(doc["choices"]))
    return item_of_record(doc)


def _metric(benchmark: Benchmark, protocol: Protocol) -> str:
    """Options differ in length: by log p of a character, unless the harness's own protocol says otherwise."""
    own = protocol == benchmark.protocols[0]
    return benchmark.metric if own or protocol != "answers" else "acc_norm"


def _chances(samples: Sequence[Sample]) -> float:
    """Right answers to expect in a subject of who guesses; of written answers, who always gives the commonest
    reference."""
    if not _is_written(samples[0]):
        return sum(_right_options(s["target"]) / len(s["arguments"]) for s in samples)
    if "exact_match" not in samples[0]["metrics"] and "acc" not in samples[0]["metrics"]:
        return 0.0  # a program
    references = Counter(str(s["target"]).split("####")[-1].strip() for s in samples)
    commonest = references.most_common(1)[0][1]
    return float(commonest) if commonest > 1 else 0.0


def _right_options(target: Any) -> int:
    return len(target) if isinstance(target, list) else 1


def _is_written(sample: Sample) -> bool:
    return isinstance(sample["resps"][0][0], str)


def _answers(
    name: str,
    scored: Mapping[str, Sequence[Sample]],
    values: Mapping[str, Sequence[float]],
    parts: Mapping[str, ExamPart | None],
) -> list[Answer]:
    answers: list[Answer] = []
    for subject, samples in scored.items():
        part = parts[subject]
        items = [item_of_doc(name, sample["doc"]) or Item("") for sample in samples]
        answers += [
            Answer(part.digest if part else "", key, value)
            for key, value in zip(item_keys(items), values[subject], strict=True)
        ]
    return answers


def _categories(
    name: str, scored: Mapping[str, Sequence[Sample]], values: Mapping[str, Sequence[float]]
) -> dict[str, Score]:
    """By the authors' categories of subjects, or by what each question says of itself."""
    grouped: dict[str, list[float]] = {}
    for category, subjects in CATEGORIES.get(name, {}).items():
        for subject in subjects & values.keys():
            grouped.setdefault(category, []).extend(values[subject])
    for subject, samples in scored.items():
        for sample, value in zip(samples, values[subject], strict=True):
            doc = sample["doc"]
            if category := doc.get("category"):
                grouped.setdefault(str(category), []).append(value)
            elif (grade := doc.get("grade")) is not None:
                grouped.setdefault(f"grade {grade}", []).append(value)
    return {category: score_of(each) for category, each in sorted(grouped.items())}


def _others(samples: Samples, benchmark: Benchmark, metric: str) -> dict[str, float]:
    """Means of the other metrics and filters, those that are one number an item."""
    values: dict[str, list[float]] = {}
    for sample in (each for rows in samples.values() for each in rows):
        for other in sample["metrics"]:
            own = sample["filter"] == benchmark.filter
            if (own and other == metric) or not isinstance(sample[other], int | float):
                continue
            values.setdefault(other if own else f"{other}/{sample['filter']}", []).append(
                sample[other]
            )
    return {other: fmean(each) for other, each in values.items()}


def _item(subject: str, sample: Sample, score: float) -> Sample:
    """One line of the log: what was asked, what was wanted, what came."""
    item: Sample = {"part": subject, "id": sample["doc_id"], "score": score}
    item |= {metric: sample[metric] for metric in sample["metrics"]}
    item["prompt"] = sample["arguments"][0][0]
    item["target"] = sample["target"]
    if _is_written(sample):
        return item | {"text": sample["resps"][0][0], "filtered": sample["filtered_resps"][0]}
    choices = [argument[1] for argument in sample["arguments"]]
    return item | {"choices": choices, "logps": [each[0][0] for each in sample["resps"]]}

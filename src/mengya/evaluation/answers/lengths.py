"""The yardsticks `answer_length` and `stop_in_time`: how long answers are, whether the model ends them."""

from __future__ import annotations

from typing import Any

from mengya.evaluation.answers.questions import ask_fixed
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult
from mengya.measured.intervals import bootstrap_mean
from mengya.measured.measurement import Measurement


def answer_length(subject: Subject, config: YardstickConfig) -> YardstickResult:
    """Characters of an answer, greedy and sampled, white space around it apart."""
    measurements: list[Measurement] = []
    items: list[dict[str, Any]] = []
    for how, asked in ask_fixed(subject, config).items():
        lengths = [len(answer.text.strip()) for answer in asked.answers]
        notes = [asked.note] if asked.note else []
        if empty := lengths.count(0):
            notes.append(f"{empty} empty")
        measurements.append(
            Measurement(
                f"answer_length/{how}",
                sum(lengths) / len(lengths),
                bootstrap_mean(lengths, config.seed),
                len(lengths),
                "characters",
                "neither",
                note="; ".join(notes),
            )
        )
        items += [
            {"part": how, "id": id_, "score": length, "tokens": answer.tokens}
            for id_, length, answer in zip(asked.ids, lengths, asked.answers, strict=True)
        ]
    return YardstickResult(measurements, items)


def stop_in_time(subject: Subject, config: YardstickConfig) -> YardstickResult:
    """The share of answers that the model itself ended, greedy and sampled.

    Not of base models: a text has no end that it must reach within so many tokens.
    """
    if not subject.chat:
        why = "a base model continues a text, which need not end"
        name = "stop_in_time"
        return YardstickResult([Measurement.not_applicable(name, "share", "higher", why)])
    measurements: list[Measurement] = []
    items: list[dict[str, Any]] = []
    for how, asked in ask_fixed(subject, config).items():
        finished = [int(answer.finished) for answer in asked.answers]
        within = f"within {config.max_new_tokens} tokens"
        measurements.append(
            Measurement.share(
                f"stop_in_time/{how}",
                sum(finished),
                len(finished),
                note="; ".join(filter(None, (within, asked.note))),
            )
        )
        items += [
            {"part": how, "id": id_, "score": score}
            for id_, score in zip(asked.ids, finished, strict=True)
        ]
    return YardstickResult(measurements, items)

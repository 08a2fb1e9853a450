"""The yardstick `loops`: the share of answers that end in a loop, greedy and sampled."""

from __future__ import annotations

from typing import Any

from mengya.evaluation.answers.questions import ask_fixed
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult
from mengya.measured.measurement import Measurement
from mengya.text.loops import ending_loop


def loops(subject: Subject, config: YardstickConfig) -> YardstickResult:
    """The share of answers that end in a loop, greedy and sampled; Wilson's intervals.

    Items hold prompts and answers: the fixed questions of a report card are shown from them.
    """
    measurements: list[Measurement] = []
    items: list[dict[str, Any]] = []
    for how, asked in ask_fixed(subject, config).items():
        found = [ending_loop(answer.text) for answer in asked.answers]
        for id_, answer, loop in zip(asked.ids, asked.answers, found, strict=True):
            items.append(
                {
                    "part": how,
                    "id": id_,
                    "score": int(loop is not None),
                    "unit": loop.unit if loop else None,
                    "prompt": answer.prompt,
                    "answer": answer.text,
                    "finished": answer.finished,
                }
            )
        count = sum(loop is not None for loop in found)
        measurements.append(
            Measurement.share(f"loops/{how}", count, len(found), "lower", note=asked.note)
        )
    return YardstickResult(measurements, items)

"""The yardstick `diversity`: whether answers repeat themselves (distinct-n) or one another (self-BLEU).

Over characters, white space left out, of the first FIRST characters of each answer: longer text repeats more,
so that length alone would decide. To be read with answer_length. Knows texts only, once they are generated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mengya.evaluation.answers.questions import ask_fixed
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult
from mengya.measured.intervals import bootstrap_mean
from mengya.measured.measurement import Measurement

FIRST = 200
ORDERS = (1, 2, 3)
BLEU_ORDER = 4


def diversity(subject: Subject, config: YardstickConfig) -> YardstickResult:
    """How varied answers are: distinct_1, _2, _3 and self_bleu; of greedy ones under greedy/."""
    measurements: list[Measurement] = []
    items: list[dict[str, Any]] = []
    asked = ask_fixed(subject, config)
    for how in ("sampled", "greedy"):
        prefix = "" if how == "sampled" else f"{how}/"
        texts = ["".join(answer.text.split())[:FIRST] for answer in asked[how].answers]
        figures = {f"distinct_{n}": [distinct(text, n) for text in texts] for n in ORDERS}
        figures["self_bleu"] = self_bleu(texts)
        for name, values in figures.items():
            measurements.append(
                Measurement(
                    f"diversity/{prefix}{name}",
                    sum(values) / len(values),
                    bootstrap_mean(values, config.seed),
                    len(values),
                    "share",
                    "lower" if name == "self_bleu" else "higher",
                    note=asked[how].note,
                )
            )
            items += [
                {"part": prefix + name, "id": id_, "score": round(value, 6)}
                for id_, value in zip(asked[how].ids, values, strict=True)
            ]
    return YardstickResult(measurements, items)


def distinct(text: str, n: int) -> float:
    """Different character n-grams / all of them (Li et al. 2016, arXiv:1510.03055, there over a corpus).

    0 for a text without one.
    """
    grams = _ngrams(text, n)
    return len(grams) / grams.total() if grams else 0.0


def self_bleu(texts: Sequence[str]) -> list[float]:
    """BLEU-4 over characters of each text against all others (Zhu et al. 2018, arXiv:1802.01886), 0 to 1.

    Not smoothed: sacrebleu's sentence BLEU with smooth_method="none", which would count every reference
    again for every text. A text shorter than 4 characters has 0.
    """
    if len(texts) < 2:
        return [0.0] * len(texts)
    log_precision = [0.0] * len(texts)
    for n in range(1, BLEU_ORDER + 1):
        counted = [_ngrams(text, n) for text in texts]
        # The most that any text has of an n-gram, the second most, and which text has the most.
        greatest: dict[str, tuple[int, int, int]] = {}
        for number, grams in enumerate(counted):
            for gram, count in grams.items():
                most, second, holder = greatest.get(gram, (0, 0, -1))
                if count > most:
                    greatest[gram] = (count, most, number)
                elif count > second:
                    greatest[gram] = (most, count, holder)
        for number, grams in enumerate(counted):
            clipped = 0
            for gram, count in grams.items():
                most, second, holder = greatest[gram]
                clipped += min(count, second if holder == number else most)
            log_precision[number] += math.log(clipped / grams.total()) if clipped else -math.inf
    lengths = Counter(map(len, texts))
    return [
        math.exp(total / BLEU_ORDER) * _brevity(len(text), lengths)
        for text, total in zip(texts, log_precision, strict=True)
    ]


def _brevity(length: int, lengths: Counter[int]) -> float:
    """BLEU's penalty against the closest length of the others, the shorter of two."""
    if length == 0:
        return 0.0
    others = [one for one, count in lengths.items() if count > (one == length)]
    closest = min(others, key=lambda one: (abs(one - length), one))
    return min(1.0, math.exp(1 - closest / length))


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[start : start + n] for start in range(len(text) - n + 1))

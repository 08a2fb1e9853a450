"""How much greedy answers overlap with held-out reference answers: token-F1, ROUGE-L, BLEU, chrF.

All are blind to meaning: a right answer in other words scores low. They compare checkpoints on the same
references, not models on absolute scales. Extra `eval` (sacrebleu, rouge-score; both come with lm-eval).

Chinese has no spaces: rouge-score alone finds no token in it and gives 0, and BLEU with its default tokenizer
takes a clause for a word. So tokens of F1 and ROUGE-L are Chinese characters, words and numbers (text_units),
BLEU splits with sacrebleu's `zh`, and chrF takes characters by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mengya.evaluation.answers.answer import answers
from mengya.evaluation.answers.questions import fitting, spread
from mengya.evaluation.answers.references.corpus_scores import (
    corpus_metrics,
    corpus_score,
    sentence_metrics,
)
from mengya.evaluation.answers.references.held_out import Reference
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult
from mengya.measured.intervals import bootstrap_mean
from mengya.measured.measurement import Measurement
from mengya.runtime.optional import require
from mengya.text.units import text_units


def overlap(
    subject: Subject, references: Sequence[Reference], config: YardstickConfig
) -> YardstickResult:
    """overlap/f1, /rouge_l (means over answers), /bleu and /chrf (over all answers as one corpus).

    Intervals are bootstrapped over answers. Items hold the scores of single answers: those of BLEU and chrF
    are sentence scores, whose mean is not the corpus's (`paired_overlap` compares corpora).

    Args:
        references: `config.limit` of them are taken, spread evenly.

    Raises:
        UserError: the libraries are not installed, or no prompt fits into the model's context.
    """
    require("sacrebleu", "eval")
    require("rouge_score", "eval")
    if not subject.chat:
        why = "a base model continues a text and answers no turns"
        return YardstickResult([Measurement.not_applicable("overlap", "share", "higher", why)])
    asked = spread(references, config.limit)
    kept = [asked[i] for i in fitting(subject, [reference.prompt for reference in asked])]
    made = answers(
        subject,
        [reference.prompt for reference in kept],
        temperature=None,
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
    )
    texts = [answer.text.strip() for answer in made]
    note = "" if len(kept) == len(asked) else f"{len(asked) - len(kept)} prompts too long"
    return scored(texts, kept, config.seed, note)


def scored(
    texts: Sequence[str], references: Sequence[Reference], seed: int, note: str = ""
) -> YardstickResult:
    """As `overlap`, of answers that are there already."""
    wanted = [reference.answer for reference in references]
    scores = {
        "f1": [token_f1(text, answer) for text, answer in zip(texts, wanted, strict=True)],
        "rouge_l": _rouge_l(texts, wanted),
    }
    measurements = [
        Measurement(
            f"overlap/{name}",
            sum(values) / len(values),
            bootstrap_mean(values, seed),
            len(values),
            "share",
            "higher",
            note=note,
        )
        for name, values in scores.items()
    ]
    sentence = sentence_metrics()
    for name, metric in corpus_metrics().items():
        value, interval = corpus_score(metric, texts, wanted, seed)
        figure = Measurement(
            f"overlap/{name}", value, interval, len(texts), "points", "higher", note=note
        )
        measurements.append(figure)
        scores[name] = [
            sentence[name].sentence_score(text, [answer]).score
            for text, answer in zip(texts, wanted, strict=True)
        ]
    items: list[dict[str, Any]] = []
    for number, (text, reference) in enumerate(zip(texts, references, strict=True)):
        for name, values in scores.items():
            item = {"part": name, "id": reference.id, "score": round(float(values[number]), 6)}
            if name == "f1":  # once is enough
                item |= {"answer": text, "reference": reference.answer}
            items.append(item)
    return YardstickResult(measurements, items)


def token_f1(text: str, reference: str) -> float:
    """F1 of the bags of units (Rajpurkar et al. 2016, arXiv:1606.05250); 1 if both are empty."""
    ours, theirs = Counter(text_units(text)), Counter(text_units(reference))
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (ours & theirs).total() / (ours.total() + theirs.total())


class _UnitTokenizer:
    """What rouge-score calls; an answer of punctuation alone has no unit, and 0."""

    def tokenize(self, text: str) -> list[str]:
        return text_units(text)


def _rouge_l(texts: Sequence[str], references: Sequence[str]) -> list[float]:
    """F-measure of the longest common subsequence (Lin 2004)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_UnitTokenizer())
    return [
        float(scorer.score(reference, text)["rougeL"].fmeasure)
        for text, reference in zip(texts, references, strict=True)
    ]

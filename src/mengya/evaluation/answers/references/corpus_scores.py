"""BLEU and chrF over all answers as one corpus, with bootstrap intervals and paired comparison; extra `eval`.

sacrebleu counts n-grams and computes scores; what it takes for its own significance tests is resampled here.
Its `n_bootstrap` gives a symmetric interval around another mean than the score, and in 2.6.0 fails where a
resample has a chrF of 0; its paired tests give no interval of the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mengya.measured.intervals import RESAMPLES, PairedDifference
from mengya.runtime.optional import require


def corpus_metrics() -> dict[str, Any]:
    """sacrebleu's metrics by name, with the defaults of its command, but Chinese text split by character.

    Raises:
        UserError: sacrebleu is not installed.
    """
    metrics = require("sacrebleu.metrics", "eval")
    return {"bleu": metrics.BLEU(tokenize="zh"), "chrf": metrics.CHRF()}


def sentence_metrics() -> dict[str, Any]:
    """The same for single answers; BLEU then leaves out orders that a short answer cannot have."""
    metrics = require("sacrebleu.metrics", "eval")
    return {"bleu": metrics.BLEU(tokenize="zh", effective_order=True), "chrf": metrics.CHRF()}


def corpus_score(
    metric: Any, texts: Sequence[str], references: Sequence[str], seed: int
) -> tuple[float, tuple[float, float]]:
    """The score, 0 to 100, and its 95 % percentile interval from resampled answers."""
    counts = _counts(metric, texts, references)
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(counts), (RESAMPLES, len(counts)))
    low, high = np.quantile([_score(metric, counts[rows]) for rows in draws], [0.025, 0.975])
    return _score(metric, counts), (float(low), float(high))


def paired_corpus_difference(
    metric: Any,
    first: Sequence[str],
    second: Sequence[str],
    references: Sequence[str],
    seed: int = 0,
) -> PairedDifference:
    """Score of `second` - score of `first` on the same references.

    The interval is from resampled answers; p from exchanging the two models' answers at random (approximate
    randomization: Riezler and Maxwell 2005, aclanthology.org/W05-0908).
    """
    one, other = _counts(metric, first, references), _counts(metric, second, references)
    generator = np.random.default_rng(seed)
    observed = _score(metric, other) - _score(metric, one)
    draws = generator.integers(0, len(one), (RESAMPLES, len(one)))
    differences = [_score(metric, other[rows]) - _score(metric, one[rows]) for rows in draws]
    low, high = np.quantile(differences, [0.025, 0.975])
    as_large = 0
    for exchanged in generator.integers(0, 2, (RESAMPLES, len(one), 1), dtype=np.int8).astype(bool):
        difference = _score(metric, np.where(exchanged, one, other)) - _score(
            metric, np.where(exchanged, other, one)
        )
        as_large += abs(difference) >= abs(observed) - 1e-12
    p = (as_large + 1) / (RESAMPLES + 1)  # the observed order is one of the draws
    return PairedDifference(observed, (float(low), float(high)), p, len(one))


def paired_overlap(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], seed: int = 0
) -> dict[str, PairedDifference]:
    """BLEU and chrF of two models from the items of their `overlap`, over the references that both have.

    Raises:
        ValueError: they have none in common.
    """
    answered = [{i["id"]: i for i in items if "reference" in i} for items in (first, second)]
    shared = [id_ for id_ in answered[0] if id_ in answered[1]]
    if not shared:
        raise ValueError("the two models have no reference in common")
    ours, theirs = ([items[id_]["answer"] for id_ in shared] for items in answered)
    references = [answered[0][id_]["reference"] for id_ in shared]
    return {
        name: paired_corpus_difference(metric, ours, theirs, references, seed)
        for name, metric in corpus_metrics().items()
    }


def _counts(metric: Any, texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """The n-gram counts of each answer, [answers, counts]."""
    return np.array(metric._extract_corpus_statistics(list(texts), [list(references)]))


def _score(metric: Any, counts: np.ndarray) -> float:
    return float(metric._compute_score_from_stats(counts.sum(0).tolist()).score)

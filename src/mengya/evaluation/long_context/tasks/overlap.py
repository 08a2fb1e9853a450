"""F1 of two sequences of units, and ROUGE-L as LongBench computes it.

ROUGE-L at the level of summaries is that of Lin 2004 (ROUGE: A Package for Automatic Evaluation of Summaries,
section 3.2): the union, over pairs of sentences, of their longest common subsequences. LongBench takes it
from the package `rouge` 1.0.1, which counts each word once, in texts and union; so do we, for equal figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_TINY = 1e-8  # in the denominator of the package's F1


def f1(prediction: Sequence[str], truth: Sequence[str]) -> float:
    """2PR / (P + R) of the units that both have, each as often as both have it; 0 when there are none."""
    same = sum((Counter(prediction) & Counter(truth)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(prediction), same / len(truth)
    return 2 * precision * recall / (precision + recall)


def rouge_l(prediction: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> float:
    """F1 of the sentences of two texts, each a list of words; 0 where a text is empty."""
    predicted = {word for sentence in prediction for word in sentence}
    true = {word for sentence in truth for word in sentence}
    if not predicted or not true:
        return 0.0
    common: set[str] = set()
    for sentence in truth:
        for other in prediction:
            common |= _longest_common(sentence, other)
    precision, recall = len(common) / len(predicted), len(common) / len(true)
    return 2 * precision * recall / (precision + recall + _TINY)


def _longest_common(first: Sequence[str], second: Sequence[str]) -> set[str]:
    """The words of one longest common subsequence: the one that is found from the end, `second` cut first."""
    table = [[0] * (len(second) + 1)]
    for word in first:
        above, row = table[-1], [0]
        for column, other in enumerate(second):
            row.append(above[column] + 1 if word == other else max(above[column + 1], row[column]))
        table.append(row)
    found: set[str] = set()
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            found.add(first[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found

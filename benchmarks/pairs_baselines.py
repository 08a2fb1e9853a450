"""What needs no language model: pairs, cloze and knowledge by characters, two characters, and length.

Trains interpolated character unigrams and bigrams on gzipped JSON lines with a "text", and answers every
item with them: the share right by part, a tie shared among the best. A part that unigrams answer could be
solved by the frequency of a word; one that bigrams answer, by a look at the neighbours.

usage: python benchmarks/pairs_baselines.py DATA/*.jsonl.gz [--characters 20e6]
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mengya.evaluation.knowledge.probe import knowledge_items
from mengya.evaluation.pairs.choice import Choice
from mengya.evaluation.pairs.suite import cloze_items, minimal_pairs

EDGE = "\n"  # before and after a text
UNSEEN = 1e-7
Scorer = Callable[[str], float]


def texts(files: Sequence[Path], characters: int) -> Iterator[str]:
    """The first `characters` / files characters of each file, by document."""
    for file in files:
        remaining = characters // len(files)
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                text = json.loads(line)["text"]
                yield text
                remaining -= len(text)
                if remaining < 0:
                    break


class CharacterModel:
    """p(b | a) = (count(ab) + 5 p(b)) / (count(a) + 5), p(b) = count(b) / all."""

    def __init__(self, documents: Iterator[str]) -> None:
        self.ones: Counter[str] = Counter()
        self.twos: Counter[str] = Counter()
        for text in documents:
            self.ones.update(text)
            self.twos.update(map(str.__add__, EDGE + text, text + EDGE))
        self.total = self.ones.total()
        self.before: Counter[str] = Counter()
        for pair, count in self.twos.items():
            self.before[pair[0]] += count

    def unigram(self, sentence: str) -> float:
        return sum(math.log(self._one(c)) for c in sentence)

    def bigram(self, sentence: str) -> float:
        return sum(
            math.log((self.twos[a + b] + 5 * self._one(b)) / (self.before[a] + 5))
            for a, b in zip(EDGE + sentence, sentence + EDGE, strict=True)
        )

    def _one(self, character: str) -> float:
        return max(self.ones[character] / self.total, UNSEEN)


def right(choice: Choice, score: Scorer) -> float:
    """1, 0, or the share of the best ones that is right; equal up to rounding is a tie."""
    good, bad = score(choice.good), [score(sentence) for sentence in choice.bad]
    if any(other > good + 1e-9 for other in bad):
        return 0.0
    return 1 / (1 + sum(other > good - 1e-9 for other in bad))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--characters", type=float, default=20e6)
    options = parser.parse_args()
    model = CharacterModel(texts(options.files, int(options.characters)))
    scorers: dict[str, Scorer] = {
        "unigram": model.unigram,
        "bigram": model.bigram,
        "shortest": lambda sentence: -float(len(sentence)),
    }
    print(f"{model.total:,} characters of {len(options.files)} files\n")
    print(
        f"| part | items | equal length | {' | '.join(scorers)} |\n|---|---:|---:|---:|---:|---:|"
    )
    suites = {"pairs": minimal_pairs, "cloze": cloze_items, "knowledge": knowledge_items}
    for name, items in suites.items():
        parts: dict[str, list[Choice]] = defaultdict(list)
        for choice in items():
            parts[name].append(choice)
            parts[f"{name}/{choice.part}"].append(choice)
        for part, choices in parts.items():
            equal = sum(choice.equal_length for choice in choices) / len(choices)
            shares = [
                sum(right(c, score) for c in choices) / len(choices) for score in scorers.values()
            ]
            figures = " | ".join(f"{share:.1%}" for share in (equal, *shares))
            print(f"| {part} | {len(choices)} | {figures} |")


if __name__ == "__main__":
    main()

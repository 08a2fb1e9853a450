"""Whether our scores of LongBench-style tasks equal those of LongBench's metrics.py, on random texts.

usage: pip install jieba rouge fuzzywuzzy
       git clone https://github.com/THUDM/LongBench
       python benchmarks/longbench_scores.py LongBench/LongBench/metrics.py [--texts 3000]
"""

from __future__ import annotations

import argparse
import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from mengya.evaluation.long_context.tasks.kinds import Kind
from mengya.evaluation.long_context.tasks.scoring import cutter, score

CHINESE = (
    "今天天气很好我们去公园玩小明在桥头钓鱼，钓到三条。北京的秋天最美！《水经》是书；数学 ABC x_1.5"
)
ENGLISH = [
    "The",
    "cat",
    "sat",
    "on",
    "mat.",
    "A",
    "dog,",
    "however,",
    "It's",
    "3.14",
    "in",
    "an",
    "old",
]
CODE = ["x = 1", "# note", "```python", "return x + 1  // y", "  for i in y:", ""]
NUMBERS = ["3", "13", "Paragraph 3", "段落5", "5", "none"]
CLASSES = ["甲", "甲乙", "乙", "甲乙丙", "丙丁"]


def chinese(rng: random.Random) -> str:
    starts = [rng.randrange(len(CHINESE)) for _ in range(rng.randint(0, 30))]
    return "".join(CHINESE[start : start + rng.randint(1, 6)] for start in starts)


def english(rng: random.Random) -> str:
    return " ".join(rng.choice(ENGLISH) for _ in range(rng.randint(0, 40)))


def code(rng: random.Random) -> str:
    return "\n".join(rng.choice(CODE) for _ in range(rng.randint(0, 5)))


def numbers(rng: random.Random) -> str:
    return " ".join(rng.choice(NUMBERS) for _ in range(rng.randint(0, 4)))


def classes(rng: random.Random) -> str:
    return "".join(rng.choice("甲乙丙丁，") for _ in range(6))


def theirs(metrics: ModuleType) -> dict[Kind, tuple[Callable[..., float], Callable[..., str], str]]:
    """Their function, what writes predictions, and the truth (empty: written as well)."""
    return {
        "f1_zh": (metrics.qa_f1_zh_score, chinese, ""),
        "f1_en": (metrics.qa_f1_score, english, ""),
        "rouge_zh": (metrics.rouge_zh_score, chinese, ""),
        "rouge_en": (metrics.rouge_score, english, ""),
        "code": (metrics.code_sim_score, code, ""),
        "count": (metrics.count_score, numbers, "5"),
        "retrieval_zh": (metrics.retrieval_zh_score, numbers, "段落5"),
        "retrieval_en": (metrics.retrieval_score, numbers, "Paragraph 3"),
        "classification": (metrics.classification_score, classes, "甲乙"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", type=Path)
    parser.add_argument("--texts", type=int, default=3000)
    arguments = parser.parse_args()
    spec = importlib.util.spec_from_file_location("longbench_metrics", arguments.metrics)
    assert spec is not None and spec.loader is not None
    metrics = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(metrics)
    jieba = cutter("jieba")
    print("| kind | texts | largest difference |\n|---|---:|---:|")
    for kind, (score_theirs, write, fixed) in theirs(metrics).items():
        rng, worst = random.Random(0), 0.0
        for _ in range(arguments.texts):
            prediction, truth = write(rng), fixed or write(rng) or "x"
            ours = score(kind, prediction, [truth], CLASSES, jieba)
            expected = float(score_theirs(prediction, truth, all_classes=CLASSES))
            worst = max(worst, abs(ours - expected))
        print(f"| {kind} | {arguments.texts:,} | {worst:.2g} |")


if __name__ == "__main__":
    main()

"""What LongBench-style data sets ask: how each is scored, how long its answers are, and our prompts.

The names, kinds and lengths of answers are LongBench's (its eval.py and dataset2maxlen.json); the prompts are
ours, by kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from mengya.runtime.yaml_values import load_yaml

Kind = Literal[
    "f1_zh", "f1_en", "rouge_zh", "rouge_en", "classification", "count", "retrieval_zh", "retrieval_en",
    "code",
]  # fmt: skip


class DataSet(NamedTuple):
    """
    Attributes:
        max_new_tokens: of an answer.
        plain: asked as text, without the chat template: its examples or its code set the form.
        first_line: only the first line of an answer counts.
    """

    kind: Kind
    max_new_tokens: int
    plain: bool = False
    first_line: bool = False


LONGBENCH = {
    "narrativeqa": DataSet("f1_en", 128),
    "qasper": DataSet("f1_en", 128),
    "multifieldqa_en": DataSet("f1_en", 64),
    "multifieldqa_zh": DataSet("f1_zh", 64),
    "hotpotqa": DataSet("f1_en", 32),
    "2wikimqa": DataSet("f1_en", 32),
    "musique": DataSet("f1_en", 32),
    "dureader": DataSet("rouge_zh", 128),
    "gov_report": DataSet("rouge_en", 512),
    "qmsum": DataSet("rouge_en", 512),
    "multi_news": DataSet("rouge_en", 512),
    "vcsum": DataSet("rouge_zh", 512),
    "trec": DataSet("classification", 64, plain=True, first_line=True),
    "triviaqa": DataSet("f1_en", 32, plain=True, first_line=True),
    "samsum": DataSet("rouge_en", 128, plain=True, first_line=True),
    "lsht": DataSet("classification", 64, plain=True, first_line=True),
    "passage_count": DataSet("count", 32),
    "passage_retrieval_en": DataSet("retrieval_en", 32),
    "passage_retrieval_zh": DataSet("retrieval_zh", 32),
    "lcc": DataSet("code", 64, plain=True),
    "repobench-p": DataSet("code", 64, plain=True),
}

OTHERS: dict[Kind, DataSet] = {
    "f1_zh": DataSet("f1_zh", 64),
    "f1_en": DataSet("f1_en", 64),
    "rouge_zh": DataSet("rouge_zh", 512),
    "rouge_en": DataSet("rouge_en", 512),
    "classification": DataSet("classification", 64, plain=True, first_line=True),
    "count": DataSet("count", 32),
    "retrieval_zh": DataSet("retrieval_zh", 32),
    "retrieval_en": DataSet("retrieval_en", 32),
    "code": DataSet("code", 64, plain=True),
}
"""Data sets that are not LongBench's, by the kind that a user names."""

PROMPTS: dict[Kind, str] = load_yaml(Path(__file__).with_name("prompts.yaml").read_text("utf-8"))
"""Ours, by kind."""


def data_set(name: str, kinds: dict[str, Kind]) -> DataSet | None:
    """What is known of a data set: what the user says, else LongBench; NAME_e is NAME of LongBench-E."""
    if name in kinds:
        return OTHERS[kinds[name]]
    return LONGBENCH.get(name.removesuffix("_e"))

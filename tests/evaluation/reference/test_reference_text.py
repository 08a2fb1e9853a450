"""The text that ships with mengya, and the curves that hold for it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from mengya.errors import UserError
from mengya.evaluation.reference.curves import CURVES, load_curves
from mengya.evaluation.reference.reference_text import (
    APART,
    is_complete,
    reference_documents,
    reference_text,
)
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.tokenizer.load import load_tokenizer


def test_documents_are_clean_different_and_of_ten_domains() -> None:
    documents = reference_documents()
    per_domain = Counter(document.domain for document in documents)
    assert (
        len(per_domain) == 10 and min(per_domain.values()) >= 6 and set(APART) < per_domain.keys()
    )
    assert len({document.id for document in documents}) == len(documents)
    assert sum(len(document.text.encode()) for document in documents) > 50_000
    sentences = [
        s for d in documents for s in d.text.replace("。", "\n").split("\n") if len(s) > 12
    ]
    repeated = [s for s, times in Counter(sentences).items() if times > 1]
    assert not [s for s in repeated if any("一" <= c <= "鿿" for c in s)]
    for document in documents:
        assert document.text == document.text.strip() and "�" not in document.text
        assert document.id.startswith(f"{document.domain}-")


def test_a_limit_takes_as_many_of_each_domain_and_says_that_it_is_not_all(checkpoint: Path) -> None:
    subject = Subject(load_causal_lm(checkpoint), load_tokenizer(checkpoint), checkpoint, False)
    result = reference_text(subject, YardstickConfig(limit=1))
    assert [item["part"] for item in result.items] == sorted(
        {d.domain for d in reference_documents()}
    )
    assert result.measurements[0].name == "reference_text"
    assert result.measurements[0].items == 9  # classics stand apart
    assert result == reference_text(subject, YardstickConfig(limit=1))
    assert not is_complete(9) and is_complete(10) and is_complete(None)


def test_the_shipped_curves_hold_for_the_shipped_text_and_fall() -> None:
    runs = load_curves()
    assert runs and len({run.name for run in runs}) == len(runs)
    for run in runs:
        assert run.bits_per_char[-1] < run.bits_per_char[0]
        assert run.data and run.optimizer and run.commit


def test_curves_of_another_text_are_refused(tmp_path: Path) -> None:
    values = json.loads(CURVES.read_text("utf-8"))
    other = tmp_path / "curves.json"
    other.write_text(json.dumps({**values, "text_sha256": "0" * 64}), "utf-8")
    with pytest.raises(UserError, match=r"another reference text.*benchmarks/reference_curves\.py"):
        load_curves(other)
    other.write_text(
        json.dumps({**values, "runs": [{**values["runs"][0], "tokens": [2, 1]}]}), "utf-8"
    )
    with pytest.raises(UserError, match="tokens that rise"):
        load_curves(other)

"""Bits by domain: each domain is that of its texts alone, all of them that of all text put together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mengya.config import load_config
from mengya.data.shards import MANIFEST, ShardWriter
from mengya.errors import UserError
from mengya.evaluation.likelihood.bits_per_char import bits_per_char, document_costs
from mengya.evaluation.likelihood.by_domain import bits_by_domain
from mengya.evaluation.likelihood.held_out import HeldOutText
from mengya.measured.intervals import bootstrap_ratio
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.stages.evaluate import EvaluateConfig, run
from mengya.tokenizer.load import document_token_id, encode_texts, load_tokenizer, tokenizer_hash


def test_a_domain_is_its_texts_alone_and_all_is_weighted_by_characters(
    checkpoint: Path, texts: list[str]
) -> None:
    model, tokenizer = load_causal_lm(checkpoint), load_tokenizer(checkpoint)
    domains = ["spring", "day", "day", "apart"]
    documents = [HeldOutText(t, d, f"{d}-{t[:1]}") for t, d in zip(texts, domains, strict=True)]
    result = bits_by_domain(list(document_costs(model, tokenizer, documents)), apart=("apart",))
    found = {measurement.name: measurement for measurement in result.measurements}
    for domain, own in (("day", texts[1:3]), ("apart", texts[3:])):
        alone = bits_per_char(model, tokenizer, own)
        assert found[f"bits_per_char/{domain}"].value == pytest.approx(alone.bits_per_char)
        assert found[f"bits_per_byte/{domain}"].value == pytest.approx(alone.bits_per_byte)
    together = bits_per_char(model, tokenizer, texts[:3])
    assert found["bits_per_char"].value == pytest.approx(together.bits_per_char)
    assert found["bits_per_char"].items == 3 and found["bits_per_char"].note == "without apart"
    low, high = found["bits_per_char"].interval or (0, 0)
    assert low <= found["bits_per_char"].value <= high
    assert found["bits_per_char/spring"].interval is None  # a single document
    assert [item["id"] for item in result.items if item.get("apart")] == ["apart-字"]
    bits = sum(item["score"] for item in result.items if not item.get("apart"))
    characters = sum(item["characters"] for item in result.items if not item.get("apart"))
    assert bits / characters == pytest.approx(together.bits_per_char)


def test_files_shards_and_sources_of_shards_are_domains(
    checkpoint: Path, texts: list[str], tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(checkpoint)
    edge = document_token_id(tokenizer)
    writer = ShardWriter(tmp_path / "shards", "text", len(tokenizer))
    for ids in encode_texts(tokenizer, texts):
        row = np.array([edge, *ids, edge])
        writer.add(row, np.array([len(row)]), None)
    writer.close(
        tokenizer={"sha256": tokenizer_hash(checkpoint)},
        sources=[{"name": "旧", "documents": 1}, {"name": "新", "documents": 3}],
    )
    assert (tmp_path / "shards" / MANIFEST).is_file()
    file = tmp_path / "law.jsonl"
    file.write_text("".join(json.dumps({"text": t}) + "\n" for t in ["", *texts[:2]]), "utf-8")
    out = tmp_path / "figures.json"
    typed = [
        f"checkpoint={checkpoint}", "device=cpu", f"text_shards={tmp_path / 'shards'}", f"out={out}",
        f"domains.law={file}", f"domains.both=[{file}, {tmp_path / 'shards'}]",
    ]  # fmt: skip
    run(load_config(EvaluateConfig, None, typed))
    values = json.loads(out.read_text("utf-8"))
    found = {m["name"]: m for m in values["yardsticks"]["bits_per_char"]}
    counts = {name: found[f"bits_per_char/{name}"]["items"] for name in ("旧", "新", "law", "both")}
    assert counts == {"旧": 1, "新": 3, "law": 2, "both": 6}
    assert values["text"]["documents"] == 4  # texts and text_shards, as before
    lines = (tmp_path / "figures_items/bits_per_char.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 12 and {"part", "id", "score", "characters"} <= json.loads(lines[0]).keys()


def test_an_empty_domain_is_named(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "law.jsonl"
    file.write_text('{"text": ""}\n', "utf-8")
    typed = [
        f"checkpoint={checkpoint}",
        "device=cpu",
        f"domains.law={file}",
        f"out={tmp_path / 'x'}",
    ]
    with pytest.raises(UserError, match=r"domains\.law: every document was empty"):
        run(load_config(EvaluateConfig, None, typed))


def test_the_interval_of_a_ratio_weighs_items_by_their_length() -> None:
    bits, lengths = [90.0, *[10.0] * 30], [10.0, *[10.0] * 30]
    low, high = bootstrap_ratio(bits, lengths)
    assert 1.0 <= low < sum(bits) / sum(lengths) < high
    assert bootstrap_ratio([2.0, 20.0], [1.0, 10.0]) == (2.0, 2.0)  # any draw has the same ratio
    with pytest.raises(ValueError, match="2 numerators against 1"):
        bootstrap_ratio([1.0, 2.0], [1.0])

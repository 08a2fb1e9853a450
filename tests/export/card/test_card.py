"""The model card: what is known, what is unknown, and that no name can break it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from mengya.errors import UserError
from mengya.evaluation.card.content import card_values
from mengya.evaluation.card.life import find_life
from mengya.evaluation.card.stage import read_stage
from mengya.export.card.config import CardConfig
from mengya.export.card.lineage import lineage_of
from mengya.export.card.render import Written, write_card
from mengya.export.format import Usage
from mengya.export.parity.bounds import EXACT
from mengya.export.parity.result import Parity
from mengya.export.source import Source
from mengya.text.markdown import escape_markdown, markdown_table
from tests.evaluation.card.life import add_loops, keep

HOSTILE = "<script>|x|`y`\n# 标题 [a](b) {{ 1 }} \"q\": 'z' &amp; $1$"
PARITY = Parity({}, EXACT, {}, {"name": "t", "characters": 1}, 1.0, 1.0, [])


def card_of(source: Source, folder: Path, config: CardConfig | None = None) -> ModelCard:
    usage = [
        Usage("chat", "chat FOLDER", chat=True),
        Usage("base", "base FOLDER", chat=False),
        Usage("both", "both FOLDER"),
    ]
    written = Written("gguf Q4_0", 1000, 500, usage, "transformers", ["gguf"])
    write_card(config or CardConfig(), source, written, PARITY, folder)
    return ModelCard.load(folder / "README.md")


def run_folder(root: Path, name: str, **config: object) -> Path:
    """A run with one checkpoint, as far as files tell."""
    folder = root / name / "checkpoints" / "step-000010"
    folder.mkdir(parents=True)
    run = root / name
    values = {"global_batch_size": 4, "optimizer": {"lr": 0.001}, **config}
    (run / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    lines = [{"step": 10, "loss": 2.5, "tokens": 1000}, {"step": 20, "loss": 1.5, "tokens": 2000}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(text, encoding="utf-8")
    return folder


def shards(root: Path, name: str, license: str | None) -> dict[str, object]:
    source = {"name": name, "license": license, "documents": 3, "tokens": 30,
              "files": [{"path": "/secret/place/a.jsonl", "sha256": "ab" * 32}]}  # fmt: skip
    manifest = {"kind": "text", "sources": [source]}
    (root / "shards").mkdir()
    (root / "shards/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return {"train": [{"path": str(root / "shards")}, {"path": str(root / "gone")}]}


def test_what_is_not_known_is_said_to_be_unknown(source: Source, tmp_path: Path) -> None:
    text = card_of(source, tmp_path).text
    assert "Unknown: the checkpoint was not in the folder of a run." in text
    assert "License of the weights: unknown." in text
    assert "Not evaluated" in text and "Nothing was measured of its abilities" in text


def test_lineage_ends_where_files_end(tmp_path: Path) -> None:
    data = shards(tmp_path, "诗", "CC0-1.0")
    first = run_folder(tmp_path, "pre", data=data, init_from=str(tmp_path / "downloaded"))
    second = run_folder(tmp_path, "sft", init_from=str(first), lora={"rank": 8})
    lineage = lineage_of(second)
    assert [run.name for run in lineage.runs] == ["sft", "pre"] and lineage.base == "downloaded"
    sft, pre = lineage.runs
    assert (sft.lora, sft.step, sft.loss, sft.tokens) == (8, 10, 2.5, 1000)
    assert (sft.sequence_length, sft.verb) == (None, None)
    assert pre.missing_shards == 1
    assert [(s.name, s.license, s.files) for s in pre.sources] == [
        ("诗", "CC0-1.0", [("a.jsonl", "ab" * 32)])
    ]


def test_a_run_that_starts_from_itself_ends(tmp_path: Path) -> None:
    folder = tmp_path / "a/checkpoints/step-000010"
    run_folder(tmp_path, "a", init_from=str(folder))
    assert len(lineage_of(folder).runs) < 20


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_string_breaks_the_card(source: Source, tmp_path: Path, language: str) -> None:
    folder = run_folder(tmp_path, "pre", data=shards(tmp_path, HOSTILE, HOSTILE))
    hostile = Source(source.model, source.tokenizer, folder)
    config = CardConfig.model_validate(
        {
            "language": language,
            "name": HOSTILE,
            "license": HOSTILE,
            "tags": [HOSTILE],
            "base_model": HOSTILE,
        }
    )
    card = card_of(hostile, tmp_path, config)
    header = card.data.to_dict()
    assert header["license"] == HOSTILE and HOSTILE in header["tags"]
    assert "<script>" not in card.text.replace(r"\<script\>", "") and "/secret/" not in card.text
    (row,) = [line for line in card.text.splitlines() if "a.jsonl" in line]
    header = next(line for line in card.text.splitlines() if "SHA-256" in line)
    assert row.replace(r"\|", "").count("|") == header.count("|")
    assert sum(line.startswith("# ") for line in card.text.splitlines()) == 1


def test_usage_is_that_of_the_kind_of_model(source: Source, tmp_path: Path) -> None:
    base = run_folder(tmp_path, "pre")
    (base.parents[1] / ".mengya.json").write_text(
        json.dumps({"format": 1, "verb": "pretrain", "files": []}), encoding="utf-8"
    )
    text = card_of(Source(source.model, source.tokenizer, base), tmp_path).text
    assert "base FOLDER" in text and "both FOLDER" in text and "chat FOLDER" not in text
    assert "continues text" in text
    assert "1,000 parameters, of which a token uses 500" in " ".join(text.split())


def test_results_are_the_headline_of_the_report_card(source: Source, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source.folder, tmp_path / "model"))
    add_loops(folder, 30)
    overall = {"accuracy": 0.5, "interval": [0.4, 0.6], "questions": 100}
    keep(folder, "exams/cmmlu", {"overall": overall, "num_fewshot": 5}, [])
    text = card_of(Source(source.model, source.tokenizer, folder), tmp_path).text
    assert "| cmmlu | 50.0% | 40.0% – 60.0% | 100 | 5-shot |" in text
    (place,) = find_life([folder])
    values = card_values([read_stage(place, [])], "mengya report")
    rows = [row for row in values["rows"] if row["headline"]]
    assert len(rows) == 2
    for row in rows:
        (cell,) = row["cells"]
        shown = f"| {cell['value']:.1%} | {cell['interval'][0]:.1%} – {cell['interval'][1]:.1%} |"
        assert shown in text


def test_results_of_other_weights_are_not_shown(source: Source, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source.folder, tmp_path / "model"))
    add_loops(folder, 30)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-4}), "utf-8")
    text = card_of(Source(source.model, source.tokenizer, folder), tmp_path).text
    assert "| loops" not in text and "Nothing was measured" in text


def test_ones_own_text_comes_as_it_is(source: Source, tmp_path: Path) -> None:
    (tmp_path / "about.md").write_text("**粗体** <b>x</b>\n", encoding="utf-8")
    config = CardConfig(about=tmp_path / "about.md")
    assert "**粗体** <b>x</b>" in card_of(source, tmp_path, config).text
    (tmp_path / "about.md").write_bytes("粗体".encode("gb18030"))
    with pytest.raises(UserError, match="UTF-8"):
        card_of(source, tmp_path, config)


def test_tables_keep_their_columns() -> None:
    assert markdown_table(["a", "b"], [["x|y", "1\n2"]]).splitlines() == [
        "| a | b |", "| --- | ---: |", r"| x\|y | 1 2 |",
    ]  # fmt: skip
    assert escape_markdown("<a> *b* [c](d) `e`") == r"\<a\> \*b\* \[c\](d) \`e\`"

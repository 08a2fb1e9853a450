"""What exams the training data hold goes with the weights, and `mengya evaluate` shows results without it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from mengya.config import load_config
from mengya.data.shards import TokenShards
from mengya.data.training_record import read_training_record, training_record
from mengya.errors import UserError
from mengya.runtime.training_data import TRAINING_DATA
from mengya.stages import evaluate, export, extend, merge, prepare, pretrain, quantize, sft
from tests.helpers.json_lines import write_lines
from tests.helpers.stage_fixtures import MODEL, StageFixtures, sentence

SHORT: dict[str, Any] = {"max_steps": 1, "loop": {"save_every": 1}}
QUESTIONS = [
    f"小满在第{i}7天用{i}3元买了几个苹果和几把雨伞，问每个苹果多少元钱？" for i in range(1, 9)
]


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exams") / "town"
    (folder / "test").mkdir(parents=True)
    rows = [f"{i},{q},一,二,三,四,{'ABCD'[i % 4]}\n" for i, q in enumerate(QUESTIONS)]
    (folder / "test/people.csv").write_text(",Question,A,B,C,D,Answer\n" + "".join(rows), "utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(
    fixtures: StageFixtures, exam: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Run folders of pretrain, whose text holds questions 0 and 1, and of an adapter that learned 1 and 2."""
    root = tmp_path_factory.mktemp("trained")
    texts = [{"text": "".join(sentence(i + j) for j in range(6))} for i in range(60)]
    texts[5]["text"] += QUESTIONS[0]
    texts[9]["text"] += QUESTIONS[1]
    chats = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "四元。"}]}
        for q in [*(f"第{i}天买了什么" for i in range(40)), QUESTIONS[1], QUESTIONS[2]]
    ]
    for kind, records in (("text", texts), ("conversation", chats)):
        data = write_lines(root / f"{kind}.jsonl", records)
        given = {"out": root / f"{kind}-shards", "kind": kind, "workers": 1}
        given |= {"tokenizer": fixtures.tokenizer, "sources": [str(data)]}
        given |= {"contamination": {"exams": [str(exam)]}}
        prepare.run(prepare.PrepareConfig.model_validate(given))

    def settings(kind: str, name: str, **more: Any) -> dict[str, Any]:
        given = fixtures.settings(kind, root / name, **SHORT, **more)
        return {**given, "data": {"train": [str(root / f"{kind}-shards")], "sequence_length": 128}}

    first = settings("text", "base", model={**MODEL, "vocab_size": 400})
    assert pretrain.run(pretrain.PretrainConfig.model_validate(first))
    second = settings("conversation", "chat", lora={"rank": 2})
    second["init_from"] = root / "base"
    assert sft.run(sft.SftConfig.model_validate(second))
    return root / "base", root / "chat"


def latest(run: Path) -> Path:
    return run / "checkpoints/latest"


def test_every_stage_adds_its_data_to_those_before(trained: tuple[Path, Path]) -> None:
    base, chat = (read_training_record(latest(run)) for run in trained)
    assert base is not None and [entry.run for entry in base] == ["pretrain"]
    assert chat is not None and [entry.run for entry in chat] == ["pretrain", "sft"]
    assert [entry.shards for entry in chat] == ["text-shards", "conversation-shards"]
    exams = [entry.contamination["exams"][0] for entry in chat if entry.contamination]
    assert [exam["documents"] for exam in exams] == [2, 2]
    assert len({key for exam in exams for key in exam["keys"]}) == 3
    for run in trained:
        assert (run / TRAINING_DATA).read_bytes() == (latest(run) / TRAINING_DATA).read_bytes()
        assert "苹果" not in (run / TRAINING_DATA).read_text("utf-8")
    assert AutoModelForCausalLM.from_pretrained(latest(trained[0])) is not None


def test_folders_made_of_a_checkpoint_keep_it(trained: tuple[Path, Path], tmp_path: Path) -> None:
    record = (latest(trained[1]) / TRAINING_DATA).read_bytes()
    merged = tmp_path / "merged"
    merge.run(merge.MergeConfig(checkpoint=trained[1], out=merged))
    extend.run(extend.ExtendConfig(checkpoint=merged, out=tmp_path / "more", tokens=["木桥"]))
    quantize.run(
        load_config(quantize.QuantizeConfig, None, [f"checkpoint={merged}", f"out={tmp_path}/int8",
                                                    "bits=8", "method=rtn", "group_size=32"])
    )  # fmt: skip
    export.run(load_config(export.ExportConfig, None, [f"checkpoint={merged}", f"out={tmp_path}/hf",
                                                       "to=hf"]))  # fmt: skip
    for name in ("merged", "more", "int8", "hf"):
        assert (tmp_path / name / TRAINING_DATA).read_bytes() == record, name


def test_evaluate_shows_both_numbers(
    trained: tuple[Path, Path],
    exam: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra eval")
    monkeypatch.setenv("COLUMNS", "250")
    out = tmp_path / "numbers.json"
    overrides = [f"checkpoint={trained[1]}", f"exams={exam}", f"out={out}", "device=cpu"]
    evaluate.run(load_config(evaluate.EvaluateConfig, None, overrides))
    result = json.loads(out.read_text("utf-8"))["exams"]["town"]
    assert result["overall"]["questions"] == 8
    known = result["contamination"]
    assert (known["checked"], known["contaminated"], known["clean"]["questions"]) == (8, 3, 5)
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 of 8 questions are in the training" in printed
    assert "town accuracy without contaminated questions" in printed and "5 questions" in printed


def test_evaluate_says_that_nobody_looked(fixtures: StageFixtures, exam: Path) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra eval")
    overrides = [f"checkpoint={fixtures.base}", f"exams={exam}", "limit=1", "device=cpu"]
    result = evaluate.measure(load_config(evaluate.EvaluateConfig, None, overrides))
    note = "no contamination check on record: give contamination.exams to prepare"
    assert result.exams["town"].contamination.note == note


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    assert read_training_record(tmp_path) is None
    (tmp_path / TRAINING_DATA).write_text('{"format": 1, "data": [{"run": 1}]}')
    with pytest.raises(UserError, match="damaged"):
        read_training_record(tmp_path)
    (tmp_path / TRAINING_DATA).write_text('{"format": 99, "data": []}')
    with pytest.raises(UserError, match="format 99"):
        read_training_record(tmp_path)


def test_train_of_every_folder_keeps_the_name_of_its_folder(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    folders = [tmp_path / name / "train" for name in ("web", "books")]
    for folder in folders:
        shutil.copytree(fixtures.shards["text"][0], folder)
    record = training_record("pretrain", map(TokenShards, folders), None)
    assert [entry.shards for entry in record] == ["web/train", "books/train"]

"""Our numbers are those of `lm_eval --model hf` on the same checkpoint, item by item."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mengya.evaluation.exams.exam import ExamSettings, ask_exam
from mengya.evaluation.subject import Subject
from mengya.models.hf.open_checkpoint import open_checkpoint
from tests.evaluation.exams import exam_files

pytest.importorskip("lm_eval", reason="needs the extra eval")

EXAMS: dict[str, tuple[Callable[[Path], Path], str, dict[str, Any]]] = {
    "ceval": (exam_files.ceval, "ceval", {"num_fewshot": 2}),
    "cmmlu": (exam_files.cmmlu, "cmmlu", {"num_fewshot": 1}),
    "mmlu": (exam_files.mmlu, "mmlu", {}),
    "mmlu answers": (exam_files.mmlu, "mmlu", {"protocols": ["answers"], "num_fewshot": 2}),
    "gsm8k": (exam_files.gsm8k, "gsm8k_test.jsonl", {"num_fewshot": 1}),
    "zhoblimp": (exam_files.zhoblimp, "BA_meiba.jsonl", {}),
    "xstorycloze": (exam_files.xstorycloze, "story.jsonl", {}),
    "agieval": (exam_files.agieval, "agieval", {}),
    "c3 answers": (exam_files.c3, "c3", {"protocols": ["answers"]}),
    "cmmlu as chat": (exam_files.cmmlu, "cmmlu", {"chat_template": True, "num_fewshot": 1}),
    "cmmlu cut": (exam_files.cmmlu, "cmmlu", {"num_fewshot": 3}),
}


CONTEXT = 512
"""Room for HFLM's 256 new tokens; half of it cuts prompts."""


@pytest.fixture(scope="module")
def long_checkpoint(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long") / "checkpoint"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": CONTEXT}))
    return folder


@pytest.fixture(scope="module")
def long_subject(long_checkpoint: Path) -> Subject:
    model, tokenizer = open_checkpoint(long_checkpoint, torch.device("cpu"), torch.float32)
    return Subject(model, tokenizer, long_checkpoint, chat=False)


@pytest.fixture(scope="module")
def hflm(long_checkpoint: Path) -> Any:
    return _hflm(long_checkpoint)


@pytest.fixture(scope="module")
def short_hflm(checkpoint: Path) -> Any:
    return _hflm(checkpoint)


def _hflm(checkpoint: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    model: Any = HFLM  # its constructor's types hide the arguments
    return model(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=5)


@pytest.mark.parametrize("name", EXAMS)
def test_every_item_is_scored_as_by_hflm(
    name: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = name.endswith("cut")
    subject = request.getfixturevalue("subject" if cut else "long_subject")
    hflm = request.getfixturevalue("short_hflm" if cut else "hflm")
    make, file, more = EXAMS[name]
    exam, settings = str(make(tmp_path / file)), ExamSettings(**more)
    ((result, items),) = ask_exam(subject, exam, settings).values()
    monkeypatch.setattr(
        "mengya.evaluation.exams.model.harness_model.HarnessModel", lambda *_: _Uncut(hflm)
    )
    ((theirs, their_items),) = ask_exam(subject, exam, settings).values()
    assert len(items) == len(their_items) > 0
    for ours, other in zip(items, their_items, strict=True):
        logps, their_logps = ours.pop("logps", []), other.pop("logps", [])
        assert logps == pytest.approx(their_logps, abs=1e-3)
        assert ours == other
    assert (result.cut_prompts > 0) == cut
    assert (result.overall, result.subjects) == (theirs.overall, theirs.subjects)


class _Uncut:
    """HFLM, which does not count the prompts that it cuts."""

    def __init__(self, hflm: Any) -> None:
        self._hflm, self.cut = hflm, set[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hflm, name)


def test_the_benchmark_of_the_hub_is_the_harness_task(
    long_checkpoint: Path, long_subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """exams=gsm8k against the command `lm_eval --tasks gsm8k`: a folder stands in for the Hub's data set."""
    data = tmp_path / "openai" / "gsm8k"
    exam_files.gsm8k(data / "main" / "train.jsonl", 8)
    exam_files.gsm8k(data / "main" / "test.jsonl", 5)
    (data / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n"
        "    path: main/train.jsonl\n  - split: test\n    path: main/test.jsonl\n---\n"
    )
    monkeypatch.chdir(tmp_path)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [
        sys.executable, "-m", "lm_eval", "--model", "hf", "--log_samples",
        "--model_args", f"pretrained={long_checkpoint},dtype=float32", "--tasks", "gsm8k",
        "--num_fewshot", "1", "--device", "cpu", "--batch_size", "2", "--output_path", str(tmp_path / "out"),
    ]  # fmt: skip
    subprocess.run(command, check=True, env=os.environ | offline, capture_output=True, timeout=300)
    (file,) = (tmp_path / "out").rglob("samples_gsm8k_*.jsonl")
    theirs = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    texts = {s["doc_id"]: s["resps"][0][0] for s in theirs if s["filter"] == "strict-match"}
    ((_, items),) = ask_exam(long_subject, "gsm8k", ExamSettings(num_fewshot=1)).values()
    assert {item["id"]: item["text"] for item in items} == texts and len(texts) == 5

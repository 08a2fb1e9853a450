"""A model's life on disk for tests: runs of a tiny checkpoint, with figures as `mengya evaluate` keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from mengya.evaluation.record.file import EvaluationFile
from mengya.evaluation.record.provenance import Provenance
from mengya.measured.evaluation import FILE, subject_sha256
from mengya.measured.intervals import wilson
from mengya.measured.measurement import Measurement

ORIGIN = Provenance(
    command="mengya evaluate CKPT yardsticks=loops", seed=7, device="cpu", hardware="a slow CPU",
    dtype="float32", versions={"mengya": "0", "torch": "2"}, tokenizer_sha256="0" * 64, commit=None,
    contamination="training data not checked for exam items: text",
)  # fmt: skip
SETTINGS = {"mengya": "0", "device": "cpu", "dtype": "float32", "yardstick": {"limit": None}}


def add_run(
    checkpoint: Path, run: Path, verb: str, init_from: Path | None = None, steps: int = 60
) -> Path:
    """A run folder with the checkpoint, metrics and events; its checkpoint."""
    folder = run / "checkpoints/step-000060"
    shutil.copytree(checkpoint, folder)
    config = {"init_from": str(init_from) if init_from else None, "data": {"train": []}}
    (run / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), "utf-8")
    marker = {"format": 1, "verb": verb, "files": []}
    (run / ".mengya.json").write_text(json.dumps(marker), "utf-8")
    lines = [
        {
            "step": step, "loss": 9.0 if step == 40 else 6 - step / 20, "tokens": step * 1000,
            "tokens_per_second": 1000.0, "skipped": int(step > 30), "data/text/epochs": step / 25,
        }
        for step in range(1, steps + 1)
    ]  # fmt: skip
    lines.append({"step": steps, "validation/loss": 3.1, "validation/bits_per_char": 2.2})
    write_lines(run / "metrics.jsonl", lines)
    return folder


def add_loops(
    folder: Path, looping: int, items: int = 100, answers: dict[int, str] | None = None
) -> None:
    """Figures of loops: the first `looping` of the answers end in one."""
    records = [
        {
            "part": "greedy", "id": f"questions-{i + 1:03d}", "score": int(i < looping),
            "prompt": f"第{i}问？", "answer": (answers or {}).get(i, "好。"), "finished": True,
        }
        for i in range(items)
    ]  # fmt: skip
    share = looping / items
    figure = Measurement(
        "loops/greedy", share, wilson(looping, items), items, "share", "lower", note="a note"
    )
    keep(folder, "yardsticks/loops", [figure.to_json()], records)


def add_text(folder: Path, bits: list[float]) -> None:
    """Bits of documents of 10 characters each."""
    records = [
        {"part": "law" if i % 2 else "news", "id": f"d{i}", "score": each, "characters": 10, "bytes": 30}
        for i, each in enumerate(bits)
    ]  # fmt: skip
    parts = {"reference_text": records}
    parts |= {
        f"reference_text/{p}": [r for r in records if r["part"] == p] for p in ("law", "news")
    }
    figures = [
        Measurement(
            name, sum(r["score"] for r in own) / 10 / len(own), (0.0, 9.0), len(own), "bits/char", "lower"
        )
        for name, own in parts.items()
    ]  # fmt: skip
    keep(folder, "yardsticks/reference_text", [f.to_json() for f in figures], records)


def keep(folder: Path, part: str, value: Any, records: list[dict[str, Any]]) -> None:
    file = EvaluationFile(folder / FILE, str(folder), subject_sha256(folder), ORIGIN, {})
    file.keep(part, value, SETTINGS, records)


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")

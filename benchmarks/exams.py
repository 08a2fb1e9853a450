"""Seconds of an exam with our model class of the harness and with lm_eval's HFLM, one after the other.

    python benchmarks/exams.py CHECKPOINT EXAM [--limit N] [--fewshot N] [--protocol letters]
                               [--device cpu] [--dtype float32] [--only ours]

EXAM is what `mengya evaluate` takes as exams=. Both get the same tasks in one process; opening the models is
not timed; tasks, prompts, answers and scoring are. Says on how many items both agree, and
the seconds of all cores next to those of the clock, which a busy machine lengthens.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

import mengya.evaluation.exams.model.harness_model as ours
from mengya.evaluation.exams.exam import ExamSettings, ask_exam
from mengya.evaluation.subject import Subject
from mengya.models.hf.open_checkpoint import open_checkpoint, pick_dtype


class Hflm:
    """HFLM in the place of our class."""

    def __init__(self, checkpoint: Path, device: str, dtype: str, batch_size: int) -> None:
        model: Any = HFLM  # its constructor's types hide the arguments
        self._model = model(
            pretrained=str(checkpoint), device=device, dtype=dtype, batch_size=batch_size
        )
        self.cut: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Our exams against HFLM's.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("exam")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--fewshot", type=int)
    parser.add_argument("--protocol", choices=["letters", "answers", "generation"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=32, help="of HFLM; ours chooses its own")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--only", choices=["ours", "hflm"])
    options = parser.parse_args()
    device = torch.device(options.device)
    dtype = pick_dtype(options.dtype, device)
    model, tokenizer = open_checkpoint(options.checkpoint, device, dtype)
    subject = Subject(model, tokenizer, options.checkpoint, chat=False)
    protocols = [options.protocol] if options.protocol else []
    settings = ExamSettings(protocols=protocols, num_fewshot=options.fewshot, limit=options.limit)
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{parameters / 1e6:.1f}M parameters, {device}, {dtype}, {torch.get_num_threads()} threads"
    )
    scores: dict[str, list[float]] = {}
    for name in (options.only,) if options.only else ("ours", "hflm"):
        if name == "hflm":
            plain = str(dtype).removeprefix("torch.")
            hflm = Hflm(options.checkpoint, options.device, plain, options.batch_size)
            ours.HarnessModel = lambda *_, hflm=hflm: hflm  # type: ignore[assignment, misc]
        start, cpu = time.perf_counter(), time.process_time()
        ((result, items),) = ask_exam(subject, options.exam, settings).values()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        scores[name] = [item["score"] for item in items]
        print(f"{name:5} {seconds:8.1f} s ({cpu:.1f} of all cores), {len(items) / seconds:.1f} questions/s, "
              f"{result.overall.accuracy:.4f} of {len(items)}")  # fmt: skip
    if len(scores) == 2:
        same = sum(a == b for a, b in zip(*scores.values(), strict=True))
        print(f"the same score on {same} of {len(scores['ours'])}")


if __name__ == "__main__":
    main()

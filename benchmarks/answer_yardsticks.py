"""The yardsticks of answers on several checkpoints: figures with intervals, and paired differences.

usage: python benchmarks/answer_yardsticks.py OUT CHECKPOINT... [--limit N]
OUT: folder for the items, NAME.YARDSTICK.jsonl. A checkpoint whose items are there is not measured again.
Each is compared with the one before it, on what both were asked. A model of 26M takes 2 to 4 minutes on one
CPU core.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path

from mengya.evaluation.registry import YARDSTICKS
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult
from mengya.generation.chat_detection import is_chat_model
from mengya.measured.intervals import paired_difference
from mengya.models.hf.open_checkpoint import find_checkpoint, open_checkpoint, pick_dtype
from mengya.runtime.device import init_device

NAMES = ("loops", "diversity", "answer_length", "stop_in_time", "instructions")


def measured(checkpoint: Path, config: YardstickConfig) -> dict[str, YardstickResult]:
    device = init_device("auto", None)
    model, tokenizer = open_checkpoint(checkpoint, device, pick_dtype("auto", device))
    chat = is_chat_model(model, tokenizer)
    subject = Subject(model, tokenizer, find_checkpoint(checkpoint), chat)
    return {name: YARDSTICKS[name](subject, config) for name in NAMES}


def scores(file: Path) -> dict[tuple[str, str], float]:
    items = map(json.loads, file.read_text("utf-8").splitlines())
    return {(item["part"], item["id"]): float(item["score"]) for item in items}


def compare(before: Path, after: Path) -> None:
    first, second = scores(before), scores(after)
    for part in dict.fromkeys(part for part, _ in first):
        shared = [key for key in first if key[0] == part and key in second]
        if shared:
            found = paired_difference([first[k] for k in shared], [second[k] for k in shared])
            low, high = found.interval
            print(
                f"  {after.name} {part}: {found.mean:+.4f} ({low:+.4f} to {high:+.4f}), p = {found.p:.4f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    config = YardstickConfig(limit=options.limit)
    for checkpoint in options.checkpoints:
        if all(items_file(options.out, checkpoint, name).exists() for name in NAMES):
            continue
        start = time.perf_counter()
        results = measured(checkpoint, config)
        print(f"\n{checkpoint.name}, {time.perf_counter() - start:.0f} s", flush=True)
        for name, result in results.items():
            lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in result.items]
            items_file(options.out, checkpoint, name).write_text("".join(lines), "utf-8")
            for figure in result.measurements:
                interval = " to ".join(f"{bound:.4f}" for bound in figure.interval or ())
                print(
                    f"| {figure.name} | {figure.value:.4f} | {interval} | {figure.items} | {figure.note} |"
                )
    for first, second in pairwise(options.checkpoints):
        print(f"\n{second.name} - {first.name}")
        for name in NAMES:
            compare(*(items_file(options.out, checkpoint, name) for checkpoint in (first, second)))


def items_file(folder: Path, checkpoint: Path, yardstick: str) -> Path:
    return folder / f"{checkpoint.name}.{yardstick}.jsonl"


if __name__ == "__main__":
    main()

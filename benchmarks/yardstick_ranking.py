"""Whether yardsticks put checkpoints in the right order: values, intervals, and p of each neighbouring pair.

Takes checkpoints from worst to best, such as five of one run, and names of yardsticks. Each is measured on
each checkpoint; neighbours are compared on the same items. p is of items; the second p is of means over
groups of 8 items that follow one another in a part (readings of one template, and mirrored ones), since
such items are not independent. An exam comes from the item files that `mengya evaluate exams=...` wrote.

usage: python benchmarks/yardstick_ranking.py CHECKPOINT... [--yardsticks pairs cloze knowledge]
           [--items NAME FILE...]   one file a checkpoint, in the same order; may be repeated
           [--limit N] [--device cpu] [--threads 1] [--dtype float32]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, cast, get_args

from mengya.evaluation.registry import YARDSTICKS
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig
from mengya.generation.chat_detection import is_chat_model
from mengya.measured.intervals import bootstrap_mean, paired_difference
from mengya.models.hf.open_checkpoint import DtypeName, find_checkpoint, open_checkpoint, pick_dtype
from mengya.runtime.device import DeviceName, init_device

CLUSTER = 8
LOWER_IS_BETTER = {"loops", "reference_text"}
Items = Sequence[dict[str, Any]]


def measured(
    checkpoint: Path, names: Sequence[str], options: argparse.Namespace
) -> dict[str, Items]:
    """The items of each yardstick on one checkpoint."""
    device = init_device(options.device, options.threads)
    model, tokenizer = open_checkpoint(checkpoint, device, pick_dtype(options.dtype, device))
    folder = find_checkpoint(checkpoint)
    subject = Subject(model, tokenizer, folder, is_chat_model(model, tokenizer))
    config = YardstickConfig(limit=options.limit)
    return {name: YARDSTICKS[name](subject, config).items for name in names}


def read_items(file: Path) -> Items:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def scores(items: Items) -> list[float]:
    """One number an item; of text, scaled so that their mean is bits per character of all of it."""
    values = [float(item["score"]) for item in items]
    if "characters" not in items[0]:
        return values
    scale = len(items) / sum(item["characters"] for item in items)
    return [value * scale for value in values]


def group_means(items: Items) -> list[float]:
    """The mean of each CLUSTER items that follow one another in a part."""
    means: list[float] = []
    scored = zip(items, scores(items), strict=True)
    for _, part in groupby(scored, key=lambda pair: pair[0].get("part")):
        values = [value for _, value in part]
        for start in range(0, len(values), CLUSTER):
            group = values[start : start + CLUSTER]
            means.append(sum(group) / len(group))
    return means


def ranking(name: str, checkpoints: Sequence[Path], of_each: Sequence[Items]) -> str:
    """A table of one yardstick, and whether the order is right."""
    sign = -1 if name in LOWER_IS_BETTER else 1
    of_text = "characters" in of_each[0][0]

    def shown(value: float, plus: str = "") -> str:
        return f"{value:{plus}.3f}" if of_text else f"{value:{plus}.2%}"

    lines = [
        f"## {name}\n",
        "| checkpoint | value | 95 % interval | against the one before | p | p of groups |",
    ]
    lines.append("|---|---:|---|---:|---:|---:|")
    differences = [
        (
            paired_difference(scores(before), scores(after)),
            paired_difference(group_means(before), group_means(after)),
        )
        for before, after in pairwise(of_each)
    ]
    for checkpoint, items, compared in zip(checkpoints, of_each, [None, *differences], strict=True):
        values = scores(items)
        low, high = bootstrap_mean(values)
        mean = shown(sum(values) / len(values))
        row = f"| {checkpoint.name} | {mean} | {shown(low)} to {shown(high)} |"
        if compared:
            of_items, of_groups = compared
            row += f" {shown(of_items.mean, '+')} | {of_items.p:.4f} | {of_groups.p:.4f} |"
        else:
            row += " | | |"
        lines.append(row)
    better = sum(sign * of_items.mean > 0 for of_items, _ in differences)
    sure = sum(sign * d.mean > 0 and d.p < 0.05 for d, _ in differences)
    ends = paired_difference(scores(of_each[0]), scores(of_each[-1]))
    lines.append(
        f"\n{len(of_each[0]):,} items; {better} of {len(differences)} steps get better, {sure} with "
        f"p < 0.05; first to last {shown(ends.mean, '+')}, p {ends.p:.4f}\n"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--yardsticks", nargs="*", default=["pairs", "cloze", "knowledge"])
    parser.add_argument("--items", nargs="+", action="append", default=[], metavar="NAME FILE")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--device", default="cpu", choices=get_args(DeviceName))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--dtype", default="auto", choices=get_args(DtypeName))
    options = parser.parse_args()
    checkpoints = cast(list[Path], options.checkpoints)
    if unknown := [name for name in options.yardsticks if name not in YARDSTICKS]:
        parser.error(f"--yardsticks {unknown[0]} is not one of {', '.join(YARDSTICKS)}")
    if wrong := [name for name, *files in options.items if len(files) != len(checkpoints)]:
        parser.error(f"--items {wrong[0]} needs {len(checkpoints)} files: one a checkpoint")
    names = options.yardsticks
    of_each = [measured(checkpoint, names, options) for checkpoint in checkpoints] if names else []
    for name in options.yardsticks:
        print(ranking(name, checkpoints, [items[name] for items in of_each]), flush=True)
    for name, *files in options.items:
        print(ranking(name, checkpoints, [read_items(Path(file)) for file in files]), flush=True)


if __name__ == "__main__":
    main()

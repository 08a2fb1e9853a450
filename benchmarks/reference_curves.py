"""Make an entry of src/mengya/evaluation/reference/curves.json of a run from random weights.

    python benchmarks/reference_curves.py RUN_DIR name=zh-26m data="106M characters of 25 sources, 4 epochs"
        [device=cuda] [every=1] [out=FILE]

Takes the points that the run logged (loop.yardsticks=reference_text, loop.yardstick_limit at least 10), else
measures its checkpoints (train with loop.keep_last=50, so that there are some). Points inside the warmup are
left out: they say more of the batch than of the model. An entry of the same name is replaced.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mengya.errors import UserError
from mengya.evaluation.reference.curves import CURVES, ReferenceRun, load_curves, save_curves
from mengya.models.hf.open_checkpoint import find_checkpoint, pick_dtype
from mengya.runtime.device import init_device
from mengya.runtime.jsonl import read_steps
from mengya.runtime.yaml_values import read_object
from mengya.stages.run.run_curve import logged_curve, measured_curve
from mengya.tokenizer.load import load_tokenizer


def main(run: str, *arguments: str) -> None:
    given = dict(argument.split("=", 1) for argument in arguments)
    run_dir, out = Path(run), Path(given.get("out", CURVES))
    device = init_device("cuda" if given.get("device") == "cuda" else "cpu", None)
    curve = logged_curve(run_dir) or measured_curve(run_dir, device, pick_dtype("auto", device))
    if curve is None:
        raise UserError(
            f"{run_dir} is no run from random weights with checkpoints or logged points"
        )
    settings = read_object(run_dir / "config.yaml")
    after = warmup_tokens(run_dir)
    points = [point for point in curve.points if point[0] > after]
    every = int(given.get("every", "1"))
    points = points[(len(points) - 1) % every :: every]  # the last one always
    entry = ReferenceRun(
        name=given.get("name", run_dir.name),
        parameters=curve.parameters,
        active_parameters=curve.active_parameters,
        vocabulary=len(load_tokenizer(find_checkpoint(run_dir))),
        data=given["data"],
        optimizer=optimizer_line(settings),
        commit=commit(),
        tokens=tuple(tokens for tokens, _ in points),
        bits_per_char=tuple(round(bits, 4) for _, bits in points),
    )
    others = load_curves(out) if out.exists() else []
    save_curves([*(r for r in others if r.name != entry.name), entry], out)
    last = f"{entry.bits_per_char[-1]} bits/char after {entry.tokens[-1]:,} tokens"
    print(f"{entry.name}: {len(points)} points, {last}")


def warmup_tokens(run_dir: Path) -> int:
    """Tokens at the last line of metrics whose rate is still rising."""
    factors = [
        (m["tokens"], m["lr_factor"])
        for m in read_steps(run_dir / "metrics.jsonl")
        if "lr_factor" in m
    ]
    peak = max(factor for _, factor in factors)
    first = next(i for i, (_, factor) in enumerate(factors) if factor >= peak * 0.999)
    return factors[first - 1][0] if first else 0


def optimizer_line(settings: dict) -> str:
    optimizer, schedule = settings["optimizer"], settings["schedule"]
    batch = settings["global_batch_size"] * settings["data"]["sequence_length"]
    return (
        f"{optimizer['name']} {optimizer['lr']:g}, {schedule['name']}, {batch:,} positions a step"
    )


def commit() -> str:
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    ).stdout.strip()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What yardsticks cost while a run trains, and that they change nothing else: one run with and without.

    python benchmarks/yardstick_time.py RECIPE.yaml out=FOLDER [key.sub=value ...]

Writes FOLDER/with and FOLDER/without. Prints the seconds of both, the share that the run itself reports, and
whether losses and final weights are equal.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

from mengya.config import load_config
from mengya.stages import pretrain
from mengya.stages.pretrain import PretrainConfig


def main(recipe: str, *arguments: str) -> None:
    out = next(Path(a.removeprefix("out=")) for a in arguments if a.startswith("out="))
    overrides = [a for a in arguments if not a.startswith("out=")]
    yardsticks = load_config(
        PretrainConfig, Path(recipe), [f"run_dir={out}", *overrides]
    ).loop.yardsticks
    names = json.dumps(yardsticks or ["reference_text"])
    seconds = {}
    for name, chosen in (("without", "[]"), ("with", names)):
        typed = [*overrides, f"run_dir={out / name}", f"loop.yardsticks={chosen}"]
        began = time.perf_counter()
        if not pretrain.run(load_config(PretrainConfig, Path(recipe), typed)):
            sys.exit(f"{out / name} was stopped: remove {out} and start again")
        seconds[name] = time.perf_counter() - began
    lines = [json.loads(line) for line in (out / "with/metrics.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "yardstick_share" in line]
    spent = sum(line["yardstick_seconds"] for line in measured)
    print(f"yardsticks {names}, {len(measured)} times")
    print(f"without {seconds['without']:.1f} s, with {seconds['with']:.1f} s")
    print(f"measured {spent:.1f} s, {measured[-1]['yardstick_share']:.2%} of the run")
    equal = losses(out / "with") == losses(out / "without")
    print(
        f"losses equal: {equal}; weights equal: {weights(out / 'with') == weights(out / 'without')}"
    )


def losses(run_dir: Path) -> list[float]:
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def weights(run_dir: Path) -> str:
    return hashlib.sha256(
        (run_dir / "checkpoints/latest/model.safetensors").read_bytes()
    ).hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])

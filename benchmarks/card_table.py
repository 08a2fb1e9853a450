"""The README's table card -> recipe -> micro-batch -> hours, as `mengya plan` estimates it.

For each card and recipe: the largest micro-batch of 1, 2, 4, ... 128 rows that `mengya plan` says
fits, and the hours of the run with it. Nothing is trained and no GPU is needed. Hours assume the
share of the peak that was measured on an H100 (src/mengya: hardware.yaml); they are estimates.

usage: python benchmarks/card_table.py [--data-tokens 1e9] [--cards rtx4060 rtx3060 rtx4090 a100]
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from typer.testing import CliRunner

from mengya.cli import app

CARDS = ["rtx4060", "rtx3060", "rtx3090", "rtx4090", "a100", "h100"]
# recipe -> rows of one optimizer step, which the micro-batch has to divide
RECIPES = {"zh-26m": 128, "zh-64m": 256, "zh-104m": 256, "zh-198m-moe": 256}
ROWS = [1, 2, 4, 8, 16, 32, 64, 128]
GIB = 2**30


def plan(recipe: str, rows: int, card: str, tokens: float) -> dict[str, Any]:
    """What `mengya plan --json` prints for one epoch of `tokens` tokens."""
    arguments = [
        "plan", f"recipes/{recipe}", f"micro_batch_size={rows}", "epochs=1",
        "--device", card, "--data-tokens", f"{tokens:g}", "--json",
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None:
        sys.exit(f"mengya {' '.join(arguments)}: {done.exception}")
    return json.loads(done.stdout)


def fits(planned: dict[str, Any]) -> bool:
    return planned["memory"]["needed"] <= planned["device"]["memory"]


def largest(recipe: str, card: str, tokens: float) -> tuple[int, dict[str, Any]] | None:
    """The most rows that fit with their plan; None when one row does not fit."""
    found = None
    for rows in [rows for rows in ROWS if RECIPES[recipe] % rows == 0]:
        planned = plan(recipe, rows, card, tokens)
        if not fits(planned):
            break
        found = rows, planned
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-tokens", type=float, default=1e9, help="tokens of the run")
    parser.add_argument("--cards", nargs="+", default=CARDS)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    options = parser.parse_args()
    print("| card | recipe | micro_batch_size | memory | hours |")
    print("|---|---|---:|---:|---:|")
    for card in options.cards:
        for recipe in options.recipes:
            found = largest(recipe, card, options.data_tokens)
            if found is None:
                print(f"| {card} | {recipe} | does not fit | | |")
                continue
            rows, planned = found
            has = planned["device"]["memory"] / GIB
            needed = planned["memory"]["needed"] / GIB
            hours = planned["speed"]["seconds"] / 3600
            print(f"| {card} | {recipe} | {rows} | {needed:.1f} of {has:.1f} GiB | {hours:.1f} |")


if __name__ == "__main__":
    main()

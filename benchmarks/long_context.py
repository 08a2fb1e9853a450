"""How far a trained model reads: perplexity by position and passkeys, for every way to scale RoPE.

For each method the trained checkpoint is given 4 times its context, measured as it is, fine-tuned on
long rows, and measured again. Every third step of the fine-tuning is on passkey prompts (loss on the
key alone; keys of the test are held out), the others are on text. Measured are nats per token by
position on held-out documents that are long enough, and passkey retrieval by length and depth.
Results are written after each method; --draw draws what is there.

usage: python benchmarks/long_context.py CHECKPOINT SHARDS [--trained 1024] [--steps 150]
                                         [--out runs/long-context]
       python benchmarks/long_context.py --draw runs/long-context docs/pictures
CHECKPOINT: a folder trained on rows of --trained tokens. SHARDS: a folder with train/ and validation/
of `mengya prepare kind=text`. A model of 26M takes about 4 minutes on one H100.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mengya.batch import IGNORE_INDEX, Batch
from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.datasets import PackedRow, PackedRows
from mengya.data.rows.loader import batches, collate
from mengya.data.shards import TokenShards
from mengya.evaluation.likelihood.by_position import nats_by_position
from mengya.evaluation.long_context.passkey import PasskeyConfig, PasskeyText, passkey_retrieval
from mengya.kernels.cross_entropy import linear_nll
from mengya.losses.next_token import NextToken
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ContextExtension
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.models.hf.config import load_model_config
from mengya.models.hf.open_checkpoint import find_checkpoint
from mengya.runtime.device import init_device, pick_autocast_dtype
from mengya.runtime.seeding import seed_step
from mengya.tokenizer.load import load_tokenizer, tokenizer_hash
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution
from mengya.training.optim.build import build_optimizers, set_lr
from mengya.training.optim.config import OptimizerConfig
from mengya.training.schedule import ScheduleConfig, lr_factor

METHODS = ("none", "linear", "ntk", "yarn", "clex")
FACTOR = 4
PASSKEY_EVERY = 3  # steps


def stretch_of(method: str, trained: int) -> ContextExtension:
    original = {"factor": FACTOR, "original_max_position_embeddings": trained}
    rope: dict[str, Any] = {
        "none": {},
        "linear": {"rope_type": "linear", "factor": FACTOR},
        "ntk": {"rope_type": "dynamic", "factor": FACTOR},
        "yarn": {"rope_type": "yarn", **original},
        "clex": {"rope_type": "clex", **original},
    }[method]
    context = trained if method == "ntk" else trained * FACTOR
    return ContextExtension.model_validate(
        {"max_position_embeddings": context, "rope_parameters": rope}
    )


class PasskeyRows:
    """Batches of passkey prompts of several lengths, loss on the keys alone."""

    def __init__(self, text: PasskeyText, rng: random.Random, size: int) -> None:
        self._text, self._rng, self._size = text, rng, size

    def batch(self, rows: int) -> Batch:
        return collate([self._row() for _ in range(rows)], max_documents=9)

    def _row(self) -> PackedRow:
        """Prompts of one length: one as long as the row, or up to eight shorter ones."""
        count = self._rng.choice((1, 1, 2, 4, 8))
        columns: dict[str, list[int]] = {"ids": [], "labels": [], "positions": [], "numbers": []}
        ends = []
        for number in range(count):
            depth = self._rng.random()
            ids, answer = self._text.ids(self._size // count, depth, held_out=False)
            silent = len(ids) - 1 - answer
            columns["ids"] += ids[:-1]
            columns["labels"] += [IGNORE_INDEX] * silent + ids[-answer:]
            columns["positions"] += range(len(ids) - 1)
            columns["numbers"] += [number] * (len(ids) - 1)
            ends.append(len(columns["ids"]))
        left = self._size - ends[-1]
        filled = (
            np.array(values + [fill] * left, np.int64)
            for values, fill in zip(columns.values(), (0, IGNORE_INDEX, 0, -1), strict=True)
        )
        return PackedRow(*filled, ends=np.array(ends, np.int32))


def fine_tune(
    model: CausalLM,
    text_rows: PackedRows,
    passkeys: PasskeyRows,
    strategy: SingleDevice,
    options: argparse.Namespace,
) -> Iterator[float]:
    """options.steps steps; yields the loss of each step on text."""
    loss = NextToken(linear_nll=linear_nll if strategy.device.type == "cuda" else None)
    optimizers = build_optimizers(model, OptimizerConfig(lr=options.lr))
    schedule = ScheduleConfig(name="cosine", warmup_steps=min(10, options.steps // 5))
    text_steps = batches(
        text_rows, start_step=0, batch_size=BatchSize(options.rows), micro_batch_size=options.rows
    )
    model.train()
    for step in range(options.steps):
        set_lr(optimizers, lr_factor(step, options.steps, schedule))
        on_passkeys = step % PASSKEY_EVERY == PASSKEY_EVERY - 1
        batch = passkeys.batch(options.rows) if on_passkeys else next(text_steps)[0]
        items = loss.items(batch)
        with strategy.autocast():
            result = loss(model, batch.to(strategy.device, non_blocking=True))
        strategy.backward(result.loss / items)
        strategy.step(optimizers, list(model.parameters()), 1.0)
        if not on_passkeys:
            yield result.loss.item() / items


class Measure:
    """The same documents and the same prompts for every method."""

    def __init__(
        self, checkpoint: Path, held_out: TokenShards, options: argparse.Namespace
    ) -> None:
        self._tokenizer = load_tokenizer(checkpoint)
        self._length = options.trained * FACTOR
        self._held_out = held_out
        lengths = [self._length * eighths // 8 for eighths in (1, 2, 4, 6, 8)]
        self._passkey = PasskeyConfig(lengths=lengths, samples=options.samples)

    def __call__(self, model: CausalLM, strategy: SingleDevice) -> dict[str, Any]:
        documents = (self._held_out.tokens(i).tolist() for i in range(len(self._held_out)))
        model.eval()
        with strategy.autocast():
            by_position = nats_by_position(model, documents, self._length)
            cells = passkey_retrieval(model, self._tokenizer, self._passkey)
        return {"by_position": asdict(by_position), "passkey": [asdict(cell) for cell in cells]}


def run(method: str, checkpoint: Path, options: argparse.Namespace) -> dict[str, Any]:
    device = init_device("cpu" if options.cpu else "auto")
    strategy = SingleDevice(Execution(device, pick_autocast_dtype("auto", device)))
    torch.set_float32_matmul_precision("high")
    train, held_out = (TokenShards(options.shards / part) for part in ("train", "validation"))
    for shards in (train, held_out):
        shards.require("text", tokenizer_sha256=tokenizer_hash(checkpoint))
    seed_step(0, -1, 0)
    config = load_model_config(checkpoint).extend_context(stretch_of(method, options.trained))
    model = load_causal_lm(checkpoint, device, config=config)
    measure = Measure(checkpoint, held_out, options)
    began = time.perf_counter()
    before = measure(model, strategy)
    size, rng = options.trained * FACTOR, random.Random(1)
    passkeys = PasskeyRows(PasskeyText(load_tokenizer(checkpoint), rng), rng, size)
    started = time.perf_counter()
    losses = list(fine_tune(model, PackedRows(train, size), passkeys, strategy, options))
    seconds = time.perf_counter() - started
    after = measure(model, strategy)
    print(
        f"{method:8} text loss {losses[0]:.3f} -> {losses[-1]:.3f} in {seconds:.0f} s; last quarter of "
        f"positions {_last(before):.3f} -> {_last(after):.3f} nats; passkeys {_found(before):.0%} -> "
        f"{_found(after):.0%}; {time.perf_counter() - began:.0f} s in all",
        flush=True,
    )  # fmt: skip
    return {
        "method": method, "before": before, "after": after, "losses": losses, "seconds": seconds,
        "trained": options.trained, "steps": options.steps, "rows": options.rows, "lr": options.lr,
        "checkpoint": str(checkpoint), "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }  # fmt: skip


def _last(measured: dict[str, Any]) -> float:
    nats = measured["by_position"]["nats"]
    return sum(nats[-4:]) / 4


def _found(measured: dict[str, Any]) -> float:
    return sum(c["accuracy"] for c in measured["passkey"]) / len(measured["passkey"])


def draw(out: Path, pictures: Path) -> None:
    """long-context.svg: curves before and after; long-context-passkey.svg: length by depth."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    results = [
        json.loads(path.read_text(encoding="utf-8"))
        for method in METHODS
        if (path := out / f"{method}.json").is_file()
    ]
    pictures.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(2, 2, sharex=True)
    for column, when in enumerate(("before", "after")):
        perplexity, found = axes[0][column], axes[1][column]
        for result in results:
            by_position, cells = result[when]["by_position"], result[when]["passkey"]
            centres = [(i + 0.5) * by_position["width"] for i in range(len(by_position["nats"]))]
            perplexity.plot(centres, np.exp(by_position["nats"]), label=result["method"])
            lengths = sorted({c["length"] for c in cells})
            means = [np.mean([c["accuracy"] for c in cells if c["length"] == n]) for n in lengths]
            found.plot(lengths, means, marker="o", markersize=3, label=result["method"])
        for ax in (perplexity, found):
            ax.axvline(results[0]["trained"], color="gray", linestyle=":", linewidth=1)
            ax.grid(alpha=0.3)
        perplexity.set(title=f"perplexity by position, {when} fine-tuning", yscale="log")
        for which in (perplexity.yaxis.set_major_formatter, perplexity.yaxis.set_minor_formatter):
            which(ScalarFormatter())  # 20, not 2 x 10^1
        found.set(title=f"passkeys found, {when} fine-tuning", ylim=(-0.03, 1.03), xlabel="tokens")
    axes[0][0].legend(fontsize=8)
    figure.savefig(pictures / "long-context.svg", format="svg", metadata={"Date": None})

    figure = Figure(figsize=(2.4 * len(results) + 1, 5), layout="constrained")
    FigureCanvasSVG(figure)
    grids = figure.subplots(2, len(results), squeeze=False)
    for column, result in enumerate(results):
        for row, when in enumerate(("before", "after")):
            cells, ax = result[when]["passkey"], grids[row][column]
            lengths = sorted({c["length"] for c in cells})
            depths = sorted({c["depth"] for c in cells})
            share = {(c["depth"], c["length"]): c["accuracy"] for c in cells}
            image = [[share[d, n] for n in lengths] for d in depths]
            ax.imshow(image, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
            ax.set_xticks(range(len(lengths)), [str(n) for n in lengths], fontsize=6)
            ax.set_yticks(range(len(depths)), [f"{d:.0%}" for d in depths], fontsize=6)
            ax.set_title(f"{result['method']}, {when}", fontsize=8)
    figure.suptitle(
        "passkeys found: depth of the key by length of the prompt (red 0, green 1)", fontsize=9
    )
    figure.savefig(pictures / "long-context-passkey.svg", format="svg", metadata={"Date": None})
    print(f"drawn: {pictures}/long-context.svg, {pictures}/long-context-passkey.svg")


def print_table(out: Path) -> None:
    print("\n| method | | nats, first quarter | second | third | last | passkeys by length |")
    print("|---|---|---:|---:|---:|---:|---|")
    for method in METHODS:
        path = out / f"{method}.json"
        if not path.is_file():
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        for when in ("before", "after"):
            nats = result[when]["by_position"]["nats"]
            quarters = " | ".join(f"{sum(nats[i : i + 4]) / 4:.3f}" for i in (0, 4, 8, 12))
            cells = result[when]["passkey"]
            by_length = ", ".join(
                f"{n:,}: {np.mean([c['accuracy'] for c in cells if c['length'] == n]):.0%}"
                for n in sorted({c["length"] for c in cells})
            )
            print(f"| {method} | {when} | {quarters} | {by_length} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("shards", type=Path, nargs="?")
    parser.add_argument(
        "--trained", type=int, default=1024, help="tokens of the rows it was trained on"
    )
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--samples", type=int, default=10, help="prompts for each length and depth")
    parser.add_argument("--out", type=Path, default=Path("runs/long-context"))
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--draw", type=Path, nargs=2, metavar=("OUT", "PICTURES"))
    options = parser.parse_args()
    if options.draw:
        print_table(options.draw[0])
        draw(*options.draw)
        return
    if options.checkpoint is None or options.shards is None:
        parser.error("CHECKPOINT and SHARDS are needed")
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = find_checkpoint(options.checkpoint)
    for method in options.only:
        result = run(method, checkpoint, options)
        (options.out / f"{method}.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    print_table(options.out)
    try:
        draw(options.out, options.out)
    except ModuleNotFoundError as error:
        print(f"{error}: draw where it is installed, --draw {options.out} docs/pictures")


if __name__ == "__main__":
    main()

"""Where in a run good data is worth most, on the demo's world: one script, its table, whatever comes out.

    python benchmarks/mixtures.py [--folder runs/mixtures] [--steps 150] [--seeds 2] [--arms NAME ...]

The base model of recipes/mini reads a fifth of the world's text, about once, and, for 10 % of the run's
tokens, the questions and answers of its conversations as text. Equal tokens, equal schedule (wsd); what
differs is the place: all along, or in the decay alone; or text with its short documents first. Prints
bits per character on held-out text and on held-out questions and answers, and closed-book accuracy, mean
over seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from mengya.config import load_config
from mengya.data.ingest.texts import TextSource
from mengya.evaluation.results import Evaluation
from mengya.runtime.device import tune_cpu_allocator
from mengya.stages import evaluate, prepare, pretrain
from mengya.stages.tokenizer import train as tokenizer_stage
from mengya.world import WorldConfig, generate

RECIPES = Path(__file__).parents[1] / "recipes/mini"
SHARE, DECAY = 0.1, 0.2
_EVEN = {"text": 1 - SHARE, "chat": SHARE}
_LAST = {"text": 1 - SHARE / DECAY, "chat": SHARE / DECAY}
ARMS: dict[str, dict[str, Any]] = {
    "text alone": {"phases": [{"weights": {"text": 1}}]},
    "all along": {"phases": [{"weights": _EVEN}]},
    "in the decay": {"phases": [{"until": "decay", "weights": {"text": 1}}, {"weights": _LAST}]},
    "first": {"phases": [{"until": DECAY, "weights": _LAST}, {"weights": {"text": 1}}]},
    "short first": {"phases": [{"weights": _EVEN}], "order": "short_first"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/mixtures"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    options = parser.parse_args()
    tune_cpu_allocator()
    make_data(options.folder)
    results: dict[str, list[list[float]]] = {}
    for seed in range(options.seeds):
        for arm in options.arms:
            run_dir = options.folder / f"{arm.replace(' ', '-')}-{seed}"
            if not (run_dir / "report.html").is_file():
                train(options.folder, run_dir, arm, seed, options.steps)
            results.setdefault(arm, []).append(measure(options.folder, run_dir))
            print(arm, seed, results[arm][-1], flush=True)
    print("| questions and answers | text, bits/char | questions, bits/char | closed book |")
    print("|---|---:|---:|---:|")
    for arm, found in results.items():
        means = [statistics.mean(values) for values in zip(*found, strict=True)]
        spread = [max(values) - min(values) for values in zip(*found, strict=True)]
        cells = (f"{m:.3f} (±{s / 2:.3f})" for m, s in zip(means[:2], spread, strict=False))
        print(f"| {arm} | {' | '.join(cells)} | {means[2]:.1%} (±{spread[2] / 2:.1%}) |")


def make_data(folder: Path) -> None:
    """World, tokenizer of its text, shards of the text and of questions and answers as text."""
    world, tokenizer = folder / "world", folder / "tokenizer"
    if (folder / "shards/chat/manifest.json").is_file():
        return
    generate(world, load_config(WorldConfig, RECIPES / "world.yaml"), overwrite=True)
    for name in ("conversations", "conversations_validation"):
        write_as_text(world / f"{name}.jsonl", world / f"{name}_text.jsonl")
    sources = [str(world / "pretrain.jsonl")]
    settings = {"out": str(tokenizer), "sources": sources, "overwrite": True}
    tokenizer_stage.run(
        load_config(tokenizer_stage.TokenizerConfig, RECIPES / "tokenizer.yaml", settings)
    )
    fifth = (world / "pretrain.jsonl").read_text("utf-8").splitlines()[::5]
    (world / "fifth.jsonl").write_text("\n".join(fifth) + "\n", "utf-8")
    for name, file in (("text", "fifth"), ("chat", "conversations_text")):
        values = {
            "out": str(folder / "shards" / name), "tokenizer": str(tokenizer),
            "sources": [str(world / f"{file}.jsonl")],
        }  # fmt: skip
        prepare.run(load_config(prepare.PrepareConfig, RECIPES / "prepare.yaml", values))


def write_as_text(chats: Path, out: Path) -> None:
    lines = []
    for line in chats.read_text("utf-8").splitlines():
        turns = [m["content"] for m in json.loads(line)["messages"] if m["role"] != "system"]
        lines.append(json.dumps({"text": "\n".join(turns)}, ensure_ascii=False))
    out.write_text("\n".join(lines) + "\n", "utf-8")


def train(folder: Path, run_dir: Path, arm: str, seed: int, steps: int) -> None:
    settings = dict(ARMS[arm])
    order = settings.pop("order", "shuffled")
    shards = folder / "shards"
    values = {
        "run_dir": str(run_dir), "tokenizer": str(folder / "tokenizer"), "seed": seed, "resume": True,
        "data.train": [{"path": str(shards / "text"), "order": order}, str(shards / "chat")],
        "data.validation": [], "data.phases": settings["phases"], "max_steps": steps,
        "schedule": {"name": "wsd", "decay_ratio": DECAY}, "trackers": [], "sample_prompts": [],
    }  # fmt: skip
    values["data.train"] = [
        source for source, name in zip(values["data.train"], ("text", "chat"), strict=True)
        if any(phase["weights"].get(name) for phase in settings["phases"])
    ]  # fmt: skip
    assert pretrain.run(load_config(pretrain.PretrainConfig, RECIPES / "pretrain.yaml", values))


def measure(folder: Path, run_dir: Path) -> list[float]:
    """Bits per character on text and on questions and answers, closed-book accuracy."""
    exams = [str(folder / "world/closed_book")]
    text = _measured(folder, run_dir, "pretrain_validation", exams)
    questions = _measured(folder, run_dir, "conversations_validation_text", [])
    accuracy = text.exams["closed_book"].overall.accuracy
    assert text.text is not None and questions.text is not None
    return [text.text.bits_per_char, questions.text.bits_per_char, accuracy]


def _measured(folder: Path, run_dir: Path, file: str, exams: list[str]) -> Evaluation:
    texts = [TextSource(path=str(folder / f"world/{file}.jsonl"))]
    checkpoint = run_dir / "checkpoints/latest"
    return evaluate.measure(
        evaluate.EvaluateConfig(
            checkpoint=checkpoint, device="cpu", chat_template=False, texts=texts, exams=exams
        )
    )


if __name__ == "__main__":
    main()

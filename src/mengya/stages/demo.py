"""`mengya demo`: a model of a small world, grown on this machine from nothing, measured after each stage,
then rounded to 4 bits and exported.

Calls the other stages with the recipes of recipes/mini; keeps what is done in progress.json, so that
the same command resumes where it stopped.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerFast

from mengya.config import Config, load_config
from mengya.errors import UserError
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.generation.text_completion import Start, completion_pieces, continue_texts
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.models.hf.open_checkpoint import find_checkpoint
from mengya.runtime.device import tune_cpu_allocator
from mengya.runtime.files import write_text
from mengya.runtime.jsonl import read_jsonl
from mengya.runtime.output_folder import FolderKind, open_run_folder
from mengya.stages import dpo, evaluate, export, prepare, pretrain, quantize, sft
from mengya.stages.tokenizer import train as tokenizer_stage
from mengya.tokenizer.chat_template import encode_prompt
from mengya.tokenizer.load import load_tokenizer, stop_token_ids
from mengya.training.telemetry.report import ReportTable, write_report
from mengya.world import WorldConfig
from mengya.world import generate as generate_world


class DemoConfig(Config):
    run_dir: Path = Path("runs/demo")
    """Everything the demo makes goes here; delete it to start from nothing."""
    recipes: Path = Path("recipes/mini")
    """Folder of the recipes that the demo follows, one a stage."""
    questions: int = 4
    """Questions that the three models answer side by side at the end."""


TRAINING = ("pretrain", "sft", "dpo")
FOLDER = FolderKind(
    "demo",
    (
        "progress.json",
        "results.json",
        "report.html",
        "world",
        "tokenizer",
        "shards",
        *TRAINING,
        "quantized",
        "gguf",
    ),
    unmarked=lambda folder: (folder / "progress.json").is_file(),
)
# shards -> (kind, file of the world)
SHARDS = {
    "text": ("text", "pretrain.jsonl"),
    "text-validation": ("text", "pretrain_validation.jsonl"),
    "conversations": ("conversation", "conversations.jsonl"),
    "conversations-validation": ("conversation", "conversations_validation.jsonl"),
    "preferences": ("preference", "preferences.jsonl"),
    "preferences-heldout": ("preference", "preferences_heldout.jsonl"),
}


@dataclass
class Progress:
    """Seconds spent on each step and which are done, on disk."""

    path: Path
    steps: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Progress:
        if not path.is_file():
            return cls(path, {})
        try:
            return cls(path, dict(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path} is not what the demo wrote ({error}); remove it, and all steps run again"
            ) from error

    def do(self, name: str, work: Callable[[], Any]) -> Any:
        """Run a step unless it is done; what it returns is kept, and False means: stopped half-way."""
        step = self.steps.setdefault(name, {"seconds": 0.0, "done": False, "result": None})
        if not step["done"]:
            started = time.perf_counter()
            step["result"] = work()
            step["done"] = step["result"] is not False
            step["seconds"] += time.perf_counter() - started
            write_text(self.path, json.dumps(self.steps, ensure_ascii=False, indent=1))
        return step["result"]

    @property
    def seconds(self) -> float:
        return sum(step["seconds"] for step in self.steps.values())


def run(config: DemoConfig) -> None:
    if not (config.recipes / "pretrain.yaml").is_file():
        raise UserError(
            f"no recipes in {config.recipes}: run the demo in the clone of mengya, or write recipes=FOLDER"
        )
    tune_cpu_allocator()
    with open_run_folder(config.run_dir, FOLDER):
        _grow(config)


def _grow(config: DemoConfig) -> None:
    """Run every step that is not done yet, and show what came of them."""
    home, console = config.run_dir, Console(stderr=True)
    progress = Progress.read(home / "progress.json")

    console.rule("1/6  a small world")
    world = load_config(WorldConfig, config.recipes / "world.yaml")
    progress.do("world", lambda: generate_world(home / "world", world, overwrite=True))
    console.rule("2/6  tokenizer and shards")
    progress.do("tokenizer", lambda: _train_tokenizer(config))
    progress.do("prepare", lambda: _prepare(config))
    results = []
    for number, (name, stage) in enumerate(zip(TRAINING, (pretrain, sft, dpo), strict=True), 3):
        console.rule(f"{number}/6  {name}")
        if progress.do(name, lambda name=name, stage=stage: _train(config, name, stage)) is False:
            return console.print("stopped and saved; `mengya demo` resumes from here")
        results.append(progress.do(f"evaluate {name}", lambda name=name: _evaluate(config, name)))
    answers = progress.do("answers", lambda: _answers(config))
    console.rule("6/6  quantize and export")
    small = [
        progress.do("quantize", lambda: _quantize(config)),
        progress.do("export", lambda: _export(config)),
    ]
    _finish(config, progress.seconds, results, answers, small)


def _train_tokenizer(config: DemoConfig) -> None:
    home = config.run_dir
    overrides = [
        f"out={home / 'tokenizer'}", f'sources=["{home / "world/pretrain.jsonl"}"]', "overwrite=true",
    ]  # fmt: skip
    recipe = config.recipes / "tokenizer.yaml"
    tokenizer_stage.run(load_config(tokenizer_stage.TokenizerConfig, recipe, overrides))


def _prepare(config: DemoConfig) -> None:
    home = config.run_dir
    for name, (kind, file) in SHARDS.items():
        overrides = [
            f"out={home / 'shards' / name}", f"tokenizer={home / 'tokenizer'}", f"kind={kind}",
            f'sources=[{{"path": "{home / "world" / file}"}}]',
        ]  # fmt: skip
        prepare.run(load_config(prepare.PrepareConfig, config.recipes / "prepare.yaml", overrides))


def _train(config: DemoConfig, name: str, stage: Any) -> bool:
    home = config.run_dir
    train, held_out = {
        "pretrain": ("text", "text-validation"),
        "sft": ("conversations", "conversations-validation"),
        "dpo": ("preferences", "preferences-heldout"),
    }[name]
    overrides = [
        f"run_dir={home / name}", "resume=true",
        f'data.train=["{home / "shards" / train}"]',
        f'data.validation=["{home / "shards" / held_out}"]',
    ]  # fmt: skip
    if name == "pretrain":
        overrides.append(f"tokenizer={home / 'tokenizer'}")
    else:
        before = TRAINING[TRAINING.index(name) - 1]
        overrides.append(f"init_from={_checkpoint(config, before)}")
    config_class = getattr(stage, f"{name.capitalize()}Config")
    return stage.run(load_config(config_class, config.recipes / f"{name}.yaml", overrides))


def _checkpoint(config: DemoConfig, name: str) -> Path:
    return config.run_dir / name / "checkpoints/latest"


def _evaluate(config: DemoConfig, name: str) -> dict[str, Any]:
    """One entry of results.json: the checkpoint of a stage on text, questions and pairs it never saw."""
    home = config.run_dir
    measured = evaluate.measure(
        evaluate.EvaluateConfig(
            checkpoint=_checkpoint(config, name),
            texts=[evaluate.TextSource(path=str(home / "world/pretrain_validation.jsonl"))],
            exams=[str(home / "world/closed_book")],
            chat_template=name != "pretrain",  # a chat model is asked in its own form
            preferences=home / "shards/preferences-heldout",
            device="cpu",
        )
    )
    assert measured.text is not None and measured.preference is not None  # both were asked for
    score = measured.exams["closed_book"].overall
    return {
        "name": name,
        "checkpoint": measured.checkpoint,
        "bits_per_char": measured.text.bits_per_char,
        "closed_book_accuracy": score.accuracy,
        "closed_book_interval": list(score.interval),
        "preference_accuracy": measured.preference.accuracy,
    }


def _answers(config: DemoConfig) -> list[dict[str, str]]:
    """The same held-out questions put to the three models."""
    pairs = read_jsonl(config.run_dir / "world/preferences_heldout.jsonl")
    asked = [pair["prompt"] for pair in pairs]
    questions = [messages[-1]["content"] for messages in asked if len(messages) == 1]
    step = max(1, len(questions) // config.questions)
    table = [{"question": text} for text in questions[::step][: config.questions]]
    for name in TRAINING:
        folder = find_checkpoint(_checkpoint(config, name))
        model = load_causal_lm(folder).eval()
        tokenizer = load_tokenizer(folder)
        for row in table:
            row[name] = _answer(model, tokenizer, row["question"], chat=name != "pretrain")
    return table


def _answer(model: CausalLM, tokenizer: PreTrainedTokenizerFast, question: str, chat: bool) -> str:
    """A greedy reply; the base model, which never saw a conversation, continues the plain text."""
    params = SamplingParams(max_new_tokens=60, temperature=0.0)
    if not chat:
        return continue_texts(model, tokenizer, [question], params)[0].strip()
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": question}])
    ids = generate(model, [prompt], params, stop_token_ids(tokenizer))[0]
    return "".join(completion_pieces(tokenizer, Start(prompt), ids)).strip()


def _quantize(config: DemoConfig) -> dict[str, Any]:
    """The last model in 4 bits, calibrated on the conversations that it was trained on."""
    out = config.run_dir / "quantized"
    overrides = [
        f"checkpoint={_checkpoint(config, 'dpo')}", f"out={out}", "overwrite=true", "device=cpu",
        f'calibration.shards=["{config.run_dir / "shards/conversations"}"]',
    ]  # fmt: skip
    quantize.run(load_config(quantize.QuantizeConfig, None, overrides))
    return _small("4 bits, for transformers", out, "*.safetensors")


def _export(config: DemoConfig) -> dict[str, Any]:
    """The last model as a file for llama.cpp and its like."""
    out = config.run_dir / "gguf"
    overrides = [
        f"checkpoint={_checkpoint(config, 'dpo')}", "to=gguf", f"out={out}", "overwrite=true",
        "gguf.type=Q4_0", "card.name=demo",
    ]  # fmt: skip
    export.run(load_config(export.ExportConfig, None, overrides))
    return _small("GGUF Q4_0, for llama.cpp", out, "*.gguf")


def _small(name: str, folder: Path, weights: str) -> dict[str, Any]:
    """One entry of `small` in results.json, from the folder's proof."""
    proof = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
    return {
        "name": name,
        "folder": str(folder),
        "megabytes": round(sum(file.stat().st_size for file in folder.glob(weights)) / 1e6, 2),
        "nats_per_token": [proof["nats_per_token"], proof["readers"][0]["nats_per_token"]],
        "read_by": [reader["program"] for reader in proof["readers"]],
    }


def _small_table(config: DemoConfig, small: list[dict[str, Any]]) -> ReportTable:
    """The last model before and after."""
    full = find_checkpoint(_checkpoint(config, "dpo")).glob("*.safetensors")
    megabytes = sum(file.stat().st_size for file in full) / 1e6
    rows = [["as trained", f"{megabytes:.2f}", f"{small[0]['nats_per_token'][0]:.3f}", "-"]]
    for each in small:
        after = each["nats_per_token"][1]
        rows.append(
            [each["name"], f"{each['megabytes']:.2f}", f"{after:.3f}", ", ".join(each["read_by"])]
        )
    title = "The last model made small (other text than the demo's own: no longer its world)"
    return ReportTable(title, ["form", "MB", "nats per token", "read back by"], rows)


def _finish(
    config: DemoConfig,
    seconds: float,
    results: list[dict[str, Any]],
    answers: list[dict[str, str]],
    small: list[dict[str, Any]],
) -> None:
    """results.json, report.html and the last screen."""
    home, console = config.run_dir, Console()
    summary = {"seconds": round(seconds, 1), "stages": results, "small": small}
    write_text(home / "results.json", json.dumps(summary, ensure_ascii=False, indent=2) + "\n")
    header = ["stage", "bits per character", "closed-book accuracy", "preference accuracy"]
    rows = [
        [
            result["name"],
            f"{result['bits_per_char']:.3f}",
            "{:.1%} [{:.1%}, {:.1%}]".format(
                result["closed_book_accuracy"], *result["closed_book_interval"]
            ),
            f"{result['preference_accuracy']:.1%}",
        ]
        for result in results
    ]
    columns = ["question", *TRAINING]
    tables = [
        ReportTable("After each stage (chance: 25 % closed-book, 50 % preference)", header, rows),
        ReportTable(
            "The three models side by side", columns, [[a[c] for c in columns] for a in answers]
        ),
        _small_table(config, small),
    ]
    report = home / "report.html"
    write_report(report, "mengya demo", [home / name for name in TRAINING], tables)
    for shown in tables:
        table = Table(title=shown.title, show_lines=True, expand=True)
        for name in shown.header:
            table.add_column(name, ratio=1, overflow="fold")  # none is squeezed by long answers
        for row in shown.rows:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        console.print(table)
    console.print(
        f"trained in {seconds:.0f} s; curves, samples and tables: {report}", highlight=False
    )
    asked = json.dumps([answer["question"] for answer in answers[:4]], ensure_ascii=False)
    for line in (
        f"talk with it:   {_program()} chat {_checkpoint(config, 'dpo')}",
        f"in the browser: {_program()} serve {_checkpoint(config, 'dpo')} {shlex.quote(f'starters={asked}')}",
        f"the base model: {_program()} chat {_checkpoint(config, 'pretrain')}",
        f"in 4 bits:      {_program()} chat {config.run_dir / 'quantized'}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _program() -> str:
    """What to type for this program: its path, where it is not found by name."""
    path = sys.argv[0]
    if Path(path).name != "mengya" or shutil.which("mengya") == path:
        return "mengya"
    return shlex.quote(path)

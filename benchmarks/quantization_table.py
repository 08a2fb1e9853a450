"""What few bits cost: nats per token and size of a model at many settings of `mengya quantize`.

Every row is quantized as the verb does, written as a folder, loaded as chat and serve load it, and measured
on held-out text in fp32. Seconds are those of the solver, calibration read before. With --exam also the
accuracy on a multiple-choice exam (through lm-eval, as `mengya evaluate` asks it).

usage: python benchmarks/quantization_table.py MODEL... --calibration TEXT.jsonl --held-out TEXT.jsonl
       [--characters 200000] [--only 'gptq 4'] [--propagation 0] [--exam FOLDER] [--device cuda]
With $OUT in the environment: also JSON, in $OUT/quantization_table.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import TextSource, read_texts
from mengya.data.prepare.config import PrepareSource
from mengya.evaluation.likelihood.bits_per_char import BitsPerChar, bits_per_char
from mengya.evaluation.likelihood.held_out import HeldOutText, first_characters
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.models.hf.config import load_model_config
from mengya.models.hf.open_checkpoint import open_checkpoint
from mengya.models.quantized.layouts import find_layout
from mengya.models.quantized.write import write_quantized_folder
from mengya.quantization.calibration import (
    CalibrationConfig,
    CalibrationRows,
    default_length,
    read_calibration,
)
from mengya.quantization.checks import save_dtype
from mengya.quantization.config import QuantizationConfig
from mengya.quantization.driver import QuantizationPlan, QuantizedLayer, quantize_layers
from mengya.quantization.observe import choose_widths, mean_width, observe
from mengya.runtime.device import init_device
from mengya.stages import evaluate
from mengya.tokenizer.load import load_tokenizer

SETTINGS: dict[str, dict[str, Any]] = {
    "rtn 8": {"method": "rtn", "bits": 8, "group_size": "row"},
    "llm_int8": {"method": "llm_int8"},
    "gptq W8A8": {"activations": "int8"},
    "float8 W8A8": {"activations": "float8"},
    "rtn 4": {"method": "rtn", "bits": 4},
    "awq 4": {"method": "awq", "bits": 4},
    "gptq 4": {"bits": 4},
    "gptq 4, groups of 32": {"bits": 4, "group_size": 32},
    "gptq 4, groups of 128": {"bits": 4, "group_size": 128},
    "gptq 4, a row": {"bits": 4, "group_size": "row"},
    "gptq 4, zero points": {"bits": 4, "symmetric": False},
    "rtn 3": {"method": "rtn", "bits": 3},
    "gptq 3": {"bits": 3},
    "gptq 3, zero points": {"bits": 3, "symmetric": False},
    "gptq 3, 3.5 on average": {"bits": 3, "mean_bits": 3.5},
    "rtn 2": {"method": "rtn", "bits": 2},
    "gptq 2": {"bits": 2},
    "gptq 2, groups of 32, zero points": {"bits": 2, "group_size": 32, "symmetric": False},
    "gptq 2, 3 on average": {"bits": 2, "mean_bits": 3.0},
}


class NoStore:
    """Keeps nothing: a benchmark is not resumed."""

    def load(self, number: int) -> QuantizedLayer | None:
        return None

    def save(self, number: int, layer: QuantizedLayer) -> None:
        pass


def quantize(
    model: CausalLM, config: QuantizationConfig, rows: CalibrationRows, folder: Path
) -> tuple[float, float]:
    """Write the quantized folder; (seconds of the solver, mean bits of a quantized weight)."""
    device = init_device(config.device, config.threads)
    dtype = save_dtype(config, config.checkpoint)
    layout = find_layout(config.layout_name)
    scale_dtype = layout.scale_dtype(dtype)
    started = time.perf_counter()
    widths, mean = {}, float(config.scheme().bits)
    bits = config.scheme().bits
    if config.mean_bits is not None:
        assert bits == 2 or bits == 3 or bits == 4  # what mean_bits is for
        observed = observe(model, rows, config.rule(scale_dtype), device, lambda name: None)
        widths = choose_widths(observed, bits, config.mean_bits)
        mean = mean_width(widths, observed)
    plan = QuantizationPlan(
        config.make_method(),
        lambda group: config.rule(scale_dtype, widths.get(group.name)),
        device,
    )
    used = None if config.method_name in ("rtn", "llm_int8") else rows
    weights = {}
    for layer in quantize_layers(model, plan, used, NoStore(), lambda record: None):
        weights |= layer.weights
    seconds = time.perf_counter() - started
    full = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.removesuffix(".weight") not in weights and ".mlp.experts." not in name
    }
    write_quantized_folder(
        model.config, full, weights, layout, config.checkpoint, folder, dtype=dtype
    )
    return seconds, mean


def measure(folder: Path, texts: list[str], device: torch.device) -> BitsPerChar:
    model, tokenizer = open_checkpoint(folder, device, torch.float32)
    return bits_per_char(model, tokenizer, texts)


def accuracy(folder: Path, exam: Path | None, chat: bool, device: str) -> dict[str, Any]:
    """Share of the exam's questions answered right, with its 95 % interval."""
    if exam is None:
        return {}
    wanted = evaluate.EvaluateConfig.model_validate(
        {"checkpoint": folder, "exams": [str(exam)], "chat_template": chat, "device": device}
    )
    score = next(iter(evaluate.measure(wanted).exams.values())).overall
    return {"accuracy": score.accuracy, "interval": list(score.interval)}


def rows_of(options: argparse.Namespace, checkpoint: Path) -> Iterator[dict[str, Any]]:
    """One row of the table after another, the full model's first."""
    device = init_device(options.device, options.threads)
    held_out = read_texts([TextSource(path=str(options.held_out))], BadLines(0))
    measured = first_characters(map(HeldOutText, held_out), options.characters)
    texts = [each.text for each in measured]
    calibration = CalibrationConfig(texts=[PrepareSource(path=str(options.calibration))])
    full = measure(checkpoint, texts, device)
    yield {
        "model": checkpoint.name, "setting": "full", "bits": 16.0, "seconds": 0.0,
        "megabytes": size(checkpoint), "nats": full.nats_per_token, "cost": 0.0,
    } | accuracy(checkpoint, options.exam, options.chat, options.device)  # fmt: skip
    rows = None
    for name, setting in SETTINGS.items():
        if options.only and name not in options.only:
            continue
        if setting.get("method") == "llm_int8" and load_model_config(checkpoint).num_experts:
            continue  # bitsandbytes' layout has no experts
        config = QuantizationConfig.model_validate(
            {"checkpoint": checkpoint, "out": "unused", "calibration": calibration,
             "device": options.device} | settings_of(setting, options.propagation)
        )  # fmt: skip
        model = load_causal_lm(checkpoint).eval()
        if rows is None:
            shape = model.config
            length = default_length(shape.context_length, shape.training_sequence_length)
            rows = read_calibration(calibration, checkpoint, load_tokenizer(checkpoint), length)
        with TemporaryDirectory() as directory:
            seconds, mean = quantize(model, config, rows, Path(directory))
            nats = measure(Path(directory), texts, device).nats_per_token
            yield {
                "model": checkpoint.name, "setting": name, "bits": mean, "seconds": seconds,
                "megabytes": size(Path(directory)), "nats": nats, "cost": nats - full.nats_per_token,
            } | accuracy(Path(directory), options.exam, options.chat, options.device)  # fmt: skip


def settings_of(setting: dict[str, Any], propagation: float | None) -> dict[str, Any]:
    """With the share of earlier errors that GPTQ makes up for, where one was given."""
    is_gptq = setting.get("method", "gptq") == "gptq" and setting.get("activations") != "float8"
    return setting if propagation is None or not is_gptq else setting | {"propagation": propagation}


def size(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--characters", type=int, default=200_000)
    parser.add_argument("--only", nargs="*", choices=list(SETTINGS))
    parser.add_argument("--propagation", type=float, help="of GPTQ; its default without")
    parser.add_argument("--exam", type=Path)
    parser.add_argument(
        "--chat", action="store_true", help="ask the exam through the chat template"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    found = []
    print("| model | setting | bits | MB | nats/token | cost | seconds | exam |")
    print("|---|---|---:|---:|---:|---:|---:|---|")
    for checkpoint in options.models:
        for row in rows_of(options, checkpoint):
            found.append(row)
            exam = "" if "accuracy" not in row else f"{row['accuracy']:.1%}"
            print(
                f"| {row['model']} | {row['setting']} | {row['bits']:.2f} | {row['megabytes']:.1f} | "
                f"{row['nats']:.4f} | {row['cost']:+.4f} | {row['seconds']:.1f} | {exam} |",
                flush=True,
            )
    if out := os.environ.get("OUT"):
        path = Path(out) / "quantization_table.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

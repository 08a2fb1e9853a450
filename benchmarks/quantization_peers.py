"""Nats and seconds of quantization, ours and those of llm-compressor and GPTQModel, on equal rows.

    python benchmarks/quantization_peers.py MODEL --calibration FILE --held-out FILE
        [--bits 4 3] [--group-size 64] [--sequences 128] [--length 512]
        [--llmcompressor /opt/oracles/llmcompressor/bin/python] [--gptqmodel /opt/oracles/gptq/bin/python]

Every tool gets the same rows of ids; each runs in the Python that is named, for they pin versions.
What they write is read by mengya and measured on the same held-out rows: nats per token above the full model.
Seconds are those of the quantization alone, on the wall and of the CPU, without starting Python and loading.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from mengya.config import load_config
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.models.quantized.layouts import find_layout
from mengya.models.quantized.load import load_dequantized
from mengya.models.quantized.write import write_quantized_folder
from mengya.quantization.calibration import CalibrationConfig, CalibrationRows, read_calibration
from mengya.quantization.checks import save_dtype
from mengya.quantization.config import QuantizationConfig
from mengya.quantization.driver import QuantizationPlan, QuantizedLayer, quantize_layers
from mengya.tokenizer.load import load_tokenizer

_LLMCOMPRESSOR = """
import json, sys, time
import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from transformers import AutoModelForCausalLM, AutoTokenizer

model_path, out, rows_path, method, bits, group = sys.argv[1:]
rows = json.load(open(rows_path))
model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
weights = {"num_bits": int(bits), "type": "int", "symmetric": True, "strategy": "group",
           "group_size": int(group), "dynamic": False}
if method == "gptq":
    weights["actorder"] = "static"
groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
modifier = GPTQModifier if method == "gptq" else QuantizationModifier
data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
wall, cpu = time.perf_counter(), time.process_time()
oneshot(model=model, tokenizer=AutoTokenizer.from_pretrained(model_path), dataset=data,
        recipe=modifier(config_groups=groups, ignore=["lm_head"]), num_calibration_samples=len(rows),
        max_seq_length=len(rows[0]), shuffle_calibration_samples=False)
seconds = [time.perf_counter() - wall, time.process_time() - cpu]
model.to(torch.bfloat16).save_pretrained(out, save_compressed=True)
print("SECONDS", json.dumps(seconds))
"""
_GPTQMODEL = """
import json, sys, time
import torch
from gptqmodel import GPTQModel, QuantizeConfig

model_path, out, rows_path, method, bits, group = sys.argv[1:]
rows = json.load(open(rows_path))
config = QuantizeConfig(bits=int(bits), group_size=int(group), desc_act=False)
model = GPTQModel.load(model_path, config)
data = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
wall, cpu = time.perf_counter(), time.process_time()
model.quantize(data, batch_size=8)
seconds = [time.perf_counter() - wall, time.process_time() - cpu]
model.save(out)
print("SECONDS", json.dumps(seconds))
"""


class Measured(NamedTuple):
    nats: float
    wall: float
    cpu: float


class _KeepNothing:
    def load(self, number: int) -> QuantizedLayer | None:
        return None

    def save(self, number: int, layer: QuantizedLayer) -> None:
        pass


def rows_of(file: Path, model: Path, sequences: int, length: int, seed: int = 0) -> CalibrationRows:
    """Full rows without padding."""
    config = load_config(
        CalibrationConfig, None, {"texts": file, "num_sequences": sequences, "seed": seed}
    )
    rows = read_calibration(config, model, load_tokenizer(model), length)
    if rows.tokens < sequences * length:
        sys.exit(f"{file} holds {rows.tokens:,} tokens, {sequences * length:,} are needed")
    return rows


def one_document(rows: CalibrationRows) -> CalibrationRows:
    """The rows as other tools see them: everything in a row sees everything before it."""
    positions = torch.arange(rows.input_ids_RS.shape[1]).expand_as(rows.position_ids_RS)
    documents = torch.zeros_like(rows.document_ids_RS)
    return CalibrationRows(rows.input_ids_RS, positions.contiguous(), documents, rows.facts)


def nats(model: CausalLM, rows: CalibrationRows) -> float:
    """Per token of the rows, documents apart."""
    total, count = 0.0, 0
    for parts in zip(
        rows.input_ids_RS.split(4), rows.position_ids_RS.split(4), rows.document_ids_RS.split(4),
        strict=True,
    ):  # fmt: skip
        with torch.no_grad():
            logits = model(*parts).head_output[:, :-1]
        labels = parts[0][:, 1:].clone()
        labels[parts[2][:, 1:] != parts[2][:, :-1]] = -100
        total += F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"
        ).item()
        count += int((labels != -100).sum())
    return total / count


def ours(
    model_path: Path, out: Path, rows: CalibrationRows, method: str, bits: int, group: int
) -> tuple[float, float]:
    """Quantize with mengya; seconds (wall, CPU)."""
    keys = {
        "checkpoint": model_path,
        "out": out,
        "method": method,
        "bits": bits,
        "group_size": group,
    }
    config = load_config(QuantizationConfig, None, keys)
    model = load_causal_lm(model_path).eval()
    layout, dtype = find_layout(config.layout_name), save_dtype(config, model_path)
    rule = config.rule(layout.scale_dtype(dtype))
    plan = QuantizationPlan(config.make_method(), lambda group: rule, torch.device("cpu"))
    weights = {}
    given = None if method == "rtn" else rows
    wall, cpu = time.perf_counter(), time.process_time()
    for layer in quantize_layers(model, plan, given, _KeepNothing(), lambda record: None):
        weights |= layer.weights
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    full = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.removesuffix(".weight") not in weights and ".mlp.experts." not in name
    }
    out.mkdir()
    write_quantized_folder(model.config, full, weights, layout, model_path, out, dtype=dtype)
    return seconds


def theirs(python: str, script: str) -> Callable[..., tuple[float, float]]:
    """A tool in a Python of its own."""

    def quantize(
        model_path: Path, out: Path, rows: CalibrationRows, method: str, bits: int, group: int
    ) -> tuple[float, float]:
        rows_file = out.with_suffix(".json")
        rows_file.write_text(json.dumps(rows.input_ids_RS.tolist()), "utf-8")
        command = [python, "-c", script, model_path, out, rows_file, method, str(bits), str(group)]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        line = next((x for x in done.stdout.splitlines() if x.startswith("SECONDS")), None)
        if line is None:
            raise RuntimeError(f"{python}: {done.stderr[-2000:]}")
        wall, cpu = json.loads(line.removeprefix("SECONDS"))
        return wall, cpu

    return quantize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3])
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--held-out-rows", type=int, default=64)
    parser.add_argument("--llmcompressor", help="a Python that has llm-compressor")
    parser.add_argument("--gptqmodel", help="a Python that has GPTQModel")
    given = parser.parse_args()
    tools: list[tuple[str, str, Callable[..., tuple[float, float]]]] = [
        ("mengya", "rtn", ours), ("mengya", "gptq", ours), ("mengya", "awq", ours)
    ]  # fmt: skip
    if given.llmcompressor:
        run = theirs(given.llmcompressor, _LLMCOMPRESSOR)
        tools += [("llm-compressor", "rtn", run), ("llm-compressor", "gptq", run)]
    if given.gptqmodel:
        tools.append(("GPTQModel", "gptq", theirs(given.gptqmodel, _GPTQMODEL)))
    calibration = one_document(
        rows_of(given.calibration, given.model, given.sequences, given.length)
    )
    held_out = rows_of(given.held_out, given.model, given.held_out_rows, given.length)
    full = nats(load_causal_lm(given.model).eval(), held_out)
    print(f"{given.model}: {full:.5f} nats per token on {held_out.tokens:,} tokens")
    print(
        f"{'tool':15} {'method':6} {'bits':>4} {'nats':>9} {'wall s':>7} {'CPU s':>7}", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="mengya-peers-") as root:
        for bits in given.bits:
            for number, (tool, method, quantize) in enumerate(tools):
                out = Path(root) / f"{bits}-{number}"
                wall, cpu = quantize(given.model, out, calibration, method, bits, given.group_size)
                cost = nats(load_dequantized(out).eval(), held_out) - full
                row = f"{tool:15} {method:6} {bits:4} {cost:+9.5f} {wall:7.1f} {cpu:7.1f}"
                print(row, flush=True)


if __name__ == "__main__":
    main()

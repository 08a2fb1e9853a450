"""How far GPTQ's answers are from the full model's: mean KL(full || quantized) of a token on held-out text.

The divergence has far less noise than nats on few characters. Nothing is written to disk; scales are bf16.

usage: python benchmarks/gptq_accuracy.py MODEL --calibration TEXT.jsonl --held-out TEXT.jsonl
       [--rows 32] [--held-out-rows 24] [--settings '{"bits": 3, "propagation": 0}' ...]
Settings: bits, group_size, symmetric, and the fields of `Gptq`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mengya.data.prepare.config import PrepareSource
from mengya.kernels.quantized.weight import Scheme
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.quantization.calibration import CalibrationConfig, CalibrationRows, read_calibration
from mengya.quantization.driver import QuantizationPlan, QuantizedLayer, quantize_layers
from mengya.quantization.grid import GridRule
from mengya.quantization.methods.gptq import Gptq
from mengya.tokenizer.load import load_tokenizer

_LENGTH, _BATCH = 512, 8


class _KeepNothing:
    def load(self, number: int) -> QuantizedLayer | None:
        return None

    def save(self, number: int, layer: QuantizedLayer) -> None:
        pass


def quantize(model: CausalLM, rows: CalibrationRows, setting: dict[str, Any]) -> None:
    left = dict(setting)
    scheme = Scheme(left.pop("bits", 4), left.pop("group_size", 64), left.pop("symmetric", True))
    rule = GridRule(scheme, "mse", torch.bfloat16)
    plan = QuantizationPlan(Gptq(**left), lambda group: rule, torch.device("cpu"))
    for _ in quantize_layers(model, plan, rows, _KeepNothing(), lambda record: None):
        pass


@torch.no_grad()
def log_probabilities(model: CausalLM, rows: CalibrationRows) -> list[Tensor]:
    """[B, S, V] of every batch."""
    parts = (rows.input_ids_RS, rows.position_ids_RS, rows.document_ids_RS)
    batches = zip(*(part.split(_BATCH) for part in parts), strict=True)
    return [model(*batch).head_output.float().log_softmax(-1) for batch in batches]


def nats(found: list[Tensor], rows: CalibrationRows) -> float:
    """Per token that follows another one of its document."""
    ids, documents = rows.input_ids_RS, rows.document_ids_RS
    real = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] >= 0)
    logs = torch.cat(
        [part[:, :-1].gather(-1, to[:, 1:, None])[..., 0]
         for part, to in zip(found, ids.split(_BATCH), strict=True)]
    )  # fmt: skip
    return -logs[real].mean().item()


def divergence(full: list[Tensor], found: list[Tensor], rows: CalibrationRows) -> float:
    total = 0.0
    for p, q, documents in zip(full, found, rows.document_ids_RS.split(_BATCH), strict=True):
        total += (p.exp() * (p - q)).sum(-1)[documents >= 0].sum().item()
    return total / rows.tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--held-out", required=True)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--held-out-rows", type=int, default=24)
    parser.add_argument("--settings", nargs="+", type=json.loads, default=[{}])
    options = parser.parse_args()
    tokenizer = load_tokenizer(options.model)

    def rows_of(path: str, count: int) -> CalibrationRows:
        config = CalibrationConfig(texts=[PrepareSource(path=path)], num_sequences=count)
        return read_calibration(config, options.model, tokenizer, _LENGTH)

    rows = rows_of(options.calibration, options.rows)
    held_out = rows_of(options.held_out, options.held_out_rows)
    full = log_probabilities(load_causal_lm(options.model).eval(), held_out)
    print("| setting | KL | nats | seconds |\n|---|---:|---:|---:|")
    for setting in options.settings:
        model = load_causal_lm(options.model).eval()
        started = time.perf_counter()
        quantize(model, rows, setting)
        seconds = time.perf_counter() - started
        found = log_probabilities(model, held_out)
        cost = nats(found, held_out) - nats(full, held_out)
        kl = divergence(full, found, held_out)
        print(f"| {json.dumps(setting)} | {kl:.5f} | {cost:+.4f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()

"""Slow: llm-compressor, in a Python of its own, on the same rows of the same model."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from mengya.models.hf.checkpoint import load_causal_lm
from mengya.models.quantized.load import load_dequantized
from tests.helpers.trained_model import Trained

PYTHON = os.environ.get("MENGYA_LLMCOMPRESSOR", "/opt/oracles/llmcompressor/bin/python")
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "quantization_peers.py"


@pytest.mark.slow
def test_costs_no_more_than_llm_compressor(trained: Trained, tmp_path: Path) -> None:
    if not Path(PYTHON).is_file():
        pytest.skip("no llm-compressor: python -m venv DIR, DIR/bin/pip install llmcompressor, then set "
                    "MENGYA_LLMCOMPRESSOR=DIR/bin/python")  # fmt: skip
    spec = importlib.util.spec_from_file_location("quantization_peers", BENCHMARK)
    assert spec is not None and spec.loader is not None
    peers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peers)
    rows = peers.one_document(peers.rows_of(trained.texts, trained.folder, 48, 64))
    held_out = peers.one_document(peers.rows_of(trained.texts, trained.folder, 48, 64, seed=1))
    full = peers.nats(load_causal_lm(trained.folder).eval(), held_out)
    tools = {"ours": peers.ours, "theirs": peers.theirs(PYTHON, peers._LLMCOMPRESSOR)}
    costs, distances = {}, {}
    for name, quantize in tools.items():
        quantize(trained.folder, tmp_path / name, rows, "gptq", 4, 32)
        model = load_dequantized(tmp_path / name)
        costs[name] = peers.nats(model, held_out) - full
        distances[name] = trained.divergence(model)
    assert costs["ours"] < costs["theirs"] + 0.003, costs
    assert distances["ours"] < 1.1 * distances["theirs"], distances

"""A training run of every kind, and what it leaves."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from mengya.stages import dpo, pretrain, sft
from mengya.stages.dpo import DpoConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.sft import SftConfig
from tests.helpers.stage_fixtures import MODEL

LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}
MOE = {**MODEL, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SIGMOID = {
    **MOE, "scoring_func": "sigmoid", "n_shared_experts": 1, "n_group": 2, "topk_group": 1,
    "first_k_dense_replace": 1, "router_aux_loss_coef": 0.001,
}  # fmt: skip
MUON = {"name": "normuon", "muon": {"lr": 2e-3}}
CASES = {
    "pretrain": (pretrain, PretrainConfig, "text", {"model": {**MODEL, "vocab_size": 400}}),
    "pretrain-moe": (pretrain, PretrainConfig, "text", {"model": {**MOE, "vocab_size": 400}}),
    "pretrain-sigmoid": (
        pretrain, PretrainConfig, "text",
        {"model": {**SIGMOID, "vocab_size": 400}, "save_dtype": "bfloat16"},
    ),
    "pretrain-muon": (
        pretrain, PretrainConfig, "text", {"model": {**MODEL, "vocab_size": 400}, "optimizer": MUON},
    ),
    "pretrain-galore": (
        pretrain, PretrainConfig, "text",
        {
            "model": {**MODEL, "vocab_size": 400},
            "optimizer": {"name": "galore", "lr": 1e-2, "galore": {"rank": 4, "update_every": 7}},
        },
    ),
    "pretrain-ramp": (
        pretrain, PretrainConfig, "text",
        {"model": {**MODEL, "vocab_size": 400}, "batch_ramp": {"start": 2, "steps": 12}, "z_loss": 1e-3},
    ),
    "pretrain-ternary": (
        pretrain, PretrainConfig, "text",
        {"model": {**MODEL, "vocab_size": 400, "quantization": "ternary"}, "optimizer": MUON},
    ),
    "sft": (sft, SftConfig, "conversation", {"neftune_alpha": 5.0}),
    "sft-lora": (sft, SftConfig, "conversation", {"lora": LORA}),
    "dpo": (dpo, DpoConfig, "preference", {}),
    "dpo-lora": (dpo, DpoConfig, "preference", {"lora": {**LORA, "trainable_tokens": [60, 300]}}),
    "sft-bf16-folder": (sft, SftConfig, "conversation", {"save_dtype": "bfloat16"}),
}  # fmt: skip


def final_bytes(run_dir: Path) -> dict[str, bytes]:
    """Every tensor file of the last checkpoint."""
    folder = run_dir / "checkpoints/latest"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}


def stop_after(run_dir: Path, step: int) -> threading.Thread:
    """Send this process SIGTERM once the run has logged `step`."""

    def watch() -> None:
        metrics = run_dir / "metrics.jsonl"
        while not (metrics.is_file() and metrics.read_bytes().count(b'"loss"') >= step):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread

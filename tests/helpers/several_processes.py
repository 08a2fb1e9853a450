"""Training runs of every stage in several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mengya.config import save_config
from mengya.stages.dpo import DpoConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.sft import SftConfig
from mengya.training.run_config import RunConfig
from tests.helpers.stage_fixtures import MODEL, StageFixtures

ROOT = Path(__file__).parents[2]
DENSE = {**MODEL, "vocab_size": 400}
# Three experts divide over no even number of ranks: FSDP shards their rows instead.
MOE = {**DENSE, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SIGMOID = {**MOE, "num_experts": 4, "scoring_func": "sigmoid", "n_shared_experts": 1}
LORA = {"rank": 4, "alpha": 8, "trainable_tokens": [60, 300, 398]}
CONFIGS = {"pretrain": PretrainConfig, "sft": SftConfig, "dpo": DpoConfig}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("pretrain", {"model": DENSE, "save_dtype": "bfloat16", "sample_prompts": ["小满"]}),
    "untied": (
        "pretrain",
        {"model": {**DENSE, "tie_word_embeddings": False}, "gradient_checkpointing": True},
    ),
    "moe": ("pretrain", {"model": MOE}),
    "sigmoid": ("pretrain", {"model": SIGMOID}),
    "muon": ("pretrain", {"model": DENSE, "optimizer": {"name": "muon"}}),
    "normuon-moe": ("pretrain", {"model": MOE, "optimizer": {"name": "normuon"}}),
    "sft-lora": ("sft", {"lora": LORA}),
    "dpo": ("dpo", {}),
    "dpo-lora": ("dpo", {"lora": LORA}),
}
KINDS = {"pretrain": "text", "sft": "conversation", "dpo": "preference"}


def make_config(
    case: str, fixtures: StageFixtures, run_dir: Path, micro: int, **over: Any
) -> RunConfig:
    verb, more = CASES[case]
    # AdamW divides by the root of the second moment: with the usual eps of 1e-8 a gradient that is
    # zero but for rounding moves a weight by the full rate. A large eps leaves the sums to compare.
    optimizer = {"eps": 1e-3, **more.get("optimizer", {})}
    settings = fixtures.settings(KINDS[verb], run_dir, **more) | {
        "micro_batch_size": micro, "global_batch_size": 8, "max_steps": 8, "optimizer": optimizer,
        "schedule": {"name": "constant"}, "sample_tokens": 4,
        "loop": {"log_every": 1, "eval_every": 4, "save_every": 4, "sample_every": 4},
    }  # fmt: skip
    return CONFIGS[verb](**(settings | over))


def torchrun(processes: int) -> list[str]:
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}",
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def recipe(verb: str, config: RunConfig) -> str:
    """Write the recipe of a run; gives the words for together.py."""
    config.run_dir.parent.mkdir(parents=True, exist_ok=True)
    path = config.run_dir.parent / f"{config.run_dir.name}.yaml"
    save_config(config, path)
    return f"{verb}:{path}"


def run_together(processes: int, jobs: Sequence[str]) -> None:
    script = str(ROOT / "tests/helpers/together.py")
    subprocess.run([*torchrun(processes), script, *jobs], check=True, env=environment())


def losses(run_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line.get("loss", line.get("validation/loss")) for line in lines]


def zero(stage: int) -> dict[str, Any]:
    return {
        "name": "deepspeed",
        "deepspeed_config": ROOT / f"recipes/deepspeed/zero{stage}.json",
    }


def start(config: RunConfig, processes: int, **more: Any) -> subprocess.Popen[str]:
    """`torchrun -m mengya pretrain`, as a person types it."""
    path = recipe("pretrain", config).partition(":")[2]
    words = [*torchrun(processes), "-m", "mengya", "pretrain", path, "resume=true"]
    return subprocess.Popen(words, env=environment(), text=True, **more)

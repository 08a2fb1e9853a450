"""2 and 3 bits after training (RTN, GPTQ) and in training, ternary against full pretraining: nats a token.

From a checkpoint and shards: the loss of the checkpoint, and of the same with `--steps` more steps (what the
steps alone are worth); rounded to nearest and by GPTQ; with `--steps` steps in which weights are rounded,
from the full weights and from GPTQ's solution, packed by `mengya quantize` and measured in the packed folder;
a new model of the same shape, full and ternary, for `--pretrain-steps` steps. Every number is the validation
loss over all of `--validation`, computed in fp32. Jobs that are done are kept in OUT/results.json and not run
again.

usage: python benchmarks/quantization_aware.py CHECKPOINT --train SHARDS --validation SHARDS --out FOLDER
           [--steps 300] [--pretrain-steps 1200] [--rows 64] [--only full,qat-2,...] [--list]
       python benchmarks/quantization_aware.py CHECKPOINT ... --cpu --steps 4 --pretrain-steps 4 --rows 2
           (whether it runs)
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mengya.config import load_config
from mengya.data.rows.datasets import PackedRows
from mengya.data.rows.loader import validation_batches
from mengya.data.rows.mixture import Mixture
from mengya.data.shards import TokenShards
from mengya.losses.token_nll import token_nll
from mengya.models.hf.checkpoint import write_folder
from mengya.models.hf.config import load_model_config
from mengya.models.hf.open_checkpoint import find_checkpoint, open_checkpoint
from mengya.models.quantized.load import load_dequantized
from mengya.stages import pretrain, quantize
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.quantize import QuantizeConfig
from mengya.tokenizer.load import load_tokenizer


@dataclass
class Setting:
    checkpoint: Path
    train: list[Path]
    validation: Path
    out: Path
    steps: int
    pretrain_steps: int
    rows: int
    device: torch.device
    compile: bool
    group_size: int
    lr: float

    @property
    def length(self) -> int:
        return load_model_config(self.checkpoint).training_sequence_length or 512


@torch.no_grad()
def nats(s: Setting, folder: Path) -> float:
    """Loss per token of a folder of any kind, computed in fp32."""
    torch.set_float32_matmul_precision("highest")
    model, _ = open_checkpoint(folder, s.device, torch.float32)
    rows = Mixture([(PackedRows(TokenShards(s.validation), s.length, 0), None)], 0)
    total, count = 0.0, 0
    for batch in validation_batches(rows, min(s.rows, 16), 0, 1, None, 0):
        batch = batch.to(s.device)
        nll = token_nll(model(**batch.model_inputs()).head_output, batch.labels)
        total, count = total + float(nll.double().sum()), count + int((batch.labels >= 0).sum())
    return total / count


def train(s: Setting, name: str, steps: int, lr: float, **more: Any) -> Path:
    """A pretraining run; its last checkpoint."""
    run_dir = s.out / "runs" / name
    values = {
        "run_dir": str(run_dir), "resume": True, "device": s.device.type, "compile": s.compile,
        "data": {
            "train": [str(path) for path in s.train], "validation": [str(s.validation)],
            "sequence_length": s.length,
        },
        "micro_batch_size": s.rows, "global_batch_size": s.rows, "max_steps": steps,
        "optimizer": {"name": "adamw", "lr": lr, "weight_decay": 0.0},
        "schedule": {"name": "linear", "warmup_ratio": 0.05, "min_lr_ratio": 0.0},
        "loop": {"log_every": 20, "eval_every": steps, "save_every": steps, "sample_every": steps,
                 "keep_last": 1},
        "trackers": [],
    }  # fmt: skip
    assert pretrain.run(load_config(PretrainConfig, None, {**values, **more}))
    return find_checkpoint(run_dir / "checkpoints/latest")


def post_training(s: Setting, method: str, bits: int) -> dict[str, float]:
    out = quantized(s, method, bits)
    return {"nats": nats(s, out)}


def quantized(s: Setting, method: str, bits: int) -> Path:
    out = s.out / f"{method}-{bits}"
    if not out.exists():
        calibration = (
            {} if method == "rtn" else {"calibration": {"shards": [str(p) for p in s.train]}}
        )
        values = {
            "checkpoint": str(s.checkpoint), "out": str(out), "method": method, "bits": bits,
            "group_size": s.group_size, "save_dtype": "float32", "device": s.device.type, **calibration,
        }  # fmt: skip
        quantize.run(load_config(QuantizeConfig, None, values))
    return out


def aware(s: Setting, bits: int, start: str) -> dict[str, float]:
    name = f"qat-{bits}" if start == "full" else f"qat-{bits}-from-{start}"
    init = s.checkpoint if start == "full" else made_full(s, quantized(s, start, bits))
    scheme = {"bits": bits, "group_size": s.group_size}
    trained = train(s, name, s.steps, s.lr, init_from=str(init), quantization=scheme)
    return {"nats in training": nats(s, trained), "nats": nats(s, pack(s, trained, name))}


def made_full(s: Setting, folder: Path) -> Path:
    """A quantized folder as an ordinary checkpoint."""
    full = s.out / f"{folder.name}-full"
    if not full.exists():
        model = load_dequantized(folder)
        write_folder(model, load_tokenizer(folder), folder, torch.float32, full)
    return full


def pack(s: Setting, trained: Path, name: str) -> Path:
    out = s.out / f"{name}-packed"
    quantize.run(QuantizeConfig(checkpoint=trained, out=out, overwrite=True))
    return out


def more_steps(s: Setting) -> dict[str, float]:
    trained = train(s, "full", s.steps, s.lr, init_from=str(s.checkpoint))
    return {"nats": nats(s, trained)}


def new_model(s: Setting, quantization: str | None, lr: float) -> dict[str, float]:
    name = f"pretrain-{quantization or 'full'}-{lr:g}"
    shape = load_model_config(s.checkpoint).model_dump(mode="json", exclude={"quantization"})
    model = {**shape, "quantization": quantization}
    optimizer = {"name": "normuon", "lr": lr}  # the recipe's
    tokenizer = str(s.checkpoint)
    trained = train(
        s, name, s.pretrain_steps, lr, model=model, tokenizer=tokenizer, optimizer=optimizer
    )
    if quantization is None:
        return {"nats": nats(s, trained)}
    return {"nats in training": nats(s, trained), "nats": nats(s, pack(s, trained, name))}


Job = Callable[[Setting], dict[str, float]]
JOBS: dict[str, Job] = {
    "checkpoint": lambda s: {"nats": nats(s, s.checkpoint)},
    "full": more_steps,
    **{f"{m}-{b}": partial(post_training, method=m, bits=b) for b in (2, 3) for m in ("rtn", "gptq")},
    **{f"qat-{b}": partial(aware, bits=b, start="full") for b in (2, 3)},
    **{f"qat-{b}-from-gptq": partial(aware, bits=b, start="gptq") for b in (2,)},
    "pretrain-full": partial(new_model, quantization=None, lr=8e-3),
    "pretrain-ternary": partial(new_model, quantization="ternary", lr=8e-3),
    "pretrain-ternary-high": partial(new_model, quantization="ternary", lr=1.6e-2),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pretrain-steps", type=int, default=1200)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--only", default=",".join(JOBS), help="names of --list")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    if args.list:
        print("\n".join(JOBS))
        return
    setting = Setting(
        find_checkpoint(args.checkpoint), args.train, args.validation, args.out, args.steps,
        args.pretrain_steps, args.rows, torch.device("cpu" if args.cpu else "cuda"),
        not (args.no_compile or args.cpu), args.group_size, args.lr,
    )  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "results.json"
    found = json.loads(results.read_text()) if results.exists() else {}
    for name in args.only.split(","):
        if name in found:
            continue
        start = time.perf_counter()
        found[name] = JOBS[name](setting)
        found[name]["seconds"] = time.perf_counter() - start
        results.write_text(json.dumps(found, indent=1))
        print(f"{name}: {found[name]}", flush=True)
    show(found, setting)


def show(found: dict[str, dict[str, float]], s: Setting) -> None:
    """One line a job; differences are to the checkpoint, of new models to the full one."""
    print(f"\ngroups of {s.group_size}, {s.steps} steps of {s.rows} x {s.length}")
    print(f"{'':24}{'nats':>9}{'more':>9}{'in training':>13}{'seconds':>9}")
    for name, one in found.items():
        base = found.get("pretrain-full" if name.startswith("pretrain") else "checkpoint", one)
        trained = one.get("nats in training")
        shown = "" if trained is None else f"{trained:.4f}"
        more = one["nats"] - base["nats"]
        print(f"{name:24}{one['nats']:9.4f}{more:+9.4f}{shown:>13}{one['seconds']:9.0f}")


if __name__ == "__main__":
    main()

"""The model family side by side on real text: learning curves, speed, and the balance of experts.

Every member reads the same rows in the same order with the same AdamW at a constant rate after its
warm-up, for --seconds each (compilation not counted), so that curves may be compared at equal tokens
and at equal time. The mixtures run twice, with their balancing and without. All have about 26M
active parameters at a vocabulary of 6,400. Results are written after each member: a run that is cut
short loses nothing, and --draw draws what is there.

usage: python benchmarks/family.py SHARDS [--only MEMBER ...] [--seconds 20] [--out runs/family]
       python benchmarks/family.py --draw runs/family docs/pictures/family.svg
SHARDS: a folder of text shards (mengya prepare kind=text). On one GPU about 6 minutes in all.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.datasets import PackedRows
from mengya.data.rows.loader import batches
from mengya.data.shards import TokenShards
from mengya.kernels.cross_entropy import linear_nll
from mengya.losses.next_token import NextToken
from mengya.models.cache.kv import cache_bytes_per_token
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.planning.sizes import parameter_counts
from mengya.runtime.device import init_device, pick_autocast_dtype
from mengya.runtime.jsonl import read_jsonl
from mengya.runtime.seeding import seed_step
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution
from mengya.training.optim.build import build_optimizers, set_lr
from mengya.training.optim.config import OptimizerConfig
from mengya.training.schedule import ScheduleConfig, lr_factor
from mengya.training.telemetry.expert_load import ExpertLoad

DENSE: dict[str, Any] = {
    "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 2, "rope_theta": 100_000.0,
}  # fmt: skip
SOFTMAX = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 704}
SIGMOID = {
    "scoring_func": "sigmoid", "num_experts": 16, "num_experts_per_tok": 3, "n_shared_experts": 1,
    "moe_intermediate_size": 352,
}  # fmt: skip
SHARED = {
    "num_experts": 16, "num_experts_per_tok": 3, "n_shared_experts": 1, "moe_intermediate_size": 352,
    "qk_norm": False, "attention_bias": True,
}  # fmt: skip
LATENT = {
    "kv_lora_rank": 128, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 64,
    "num_key_value_heads": 8, "qk_norm": False,
}  # fmt: skip
MEMBERS: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {"qk_norm": False},
    "qwen2": {"qk_norm": False, "attention_bias": True},
    "moe-softmax": SOFTMAX,
    "moe-softmax-unbalanced": {**SOFTMAX, "router_aux_loss_coef": 0.0},
    "moe-softmax-shared": SHARED,
    "moe-sigmoid": SIGMOID,
    "moe-sigmoid-unbalanced": {**SIGMOID, "router_bias_update_speed": 0.0},
    "mla": LATENT,
    "mla-moe": {**LATENT, **SIGMOID},
}
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
TINY_EXPERTS = {"moe_intermediate_size": 32}
WARMUP_STEPS, LOG_EVERY = 20, 10
UNTIMED_STEPS = 3  # the first ones compile


def shape(member: str, vocab_size: int, size: int, tiny: bool) -> ModelConfig:
    values = {**DENSE, **MEMBERS[member], "vocab_size": vocab_size, "max_position_embeddings": size}
    if tiny:
        values |= TINY | (TINY_EXPERTS if "num_experts" in values else {})
    return ModelConfig(**values)


def train(
    config: ModelConfig, rows: PackedRows, options: argparse.Namespace
) -> Iterator[dict[str, float]]:
    """Train for options.seconds; a line of numbers every LOG_EVERY steps."""
    device = init_device("cpu" if options.cpu else "auto")
    strategy = SingleDevice(Execution(device, pick_autocast_dtype("auto", device)))
    compiled = device.type == "cuda"
    seed_step(0, -1, 0)
    model = CausalLM(config).to(device).train()
    if compiled:
        torch.set_float32_matmul_precision("high")
        model.compile_layers()
    loss = NextToken(linear_nll=linear_nll if compiled else None)
    optimizers = build_optimizers(model, OptimizerConfig(lr=2e-3))
    parameters = list(model.parameters())
    schedule = ScheduleConfig(name="constant", warmup_steps=WARMUP_STEPS)
    experts = ExpertLoad(model, strategy.all_reduce)
    steps = batches(
        rows, start_step=0, batch_size=BatchSize(options.rows), micro_batch_size=options.rows
    )
    tokens = timed_tokens = 0
    started = time.perf_counter()
    sums: list[torch.Tensor] = []
    for step, (batch,) in enumerate(steps, 1):
        set_lr(optimizers, lr_factor(step - 1, 1_000_000, schedule))
        real, items = int((batch.document_ids >= 0).sum()), loss.items(batch)
        with strategy.autocast():
            result = loss(model, batch.to(device, non_blocking=True))
        strategy.backward(result.loss / items)
        norm = strategy.step(optimizers, parameters, 1.0)
        experts.after_step(applied=norm.isfinite())
        sums.append(result.metrics["nll"] / items)
        tokens, timed_tokens = tokens + real, timed_tokens + real
        if step == UNTIMED_STEPS:
            if compiled:
                torch.cuda.synchronize()
            started, timed_tokens = time.perf_counter(), 0
        if step % LOG_EVERY == 0:
            nats = torch.stack(sums).mean().item()  # waits for the device
            seconds = time.perf_counter() - started
            load = experts.report(lambda _: None)
            yield {
                "step": step, "tokens": tokens, "seconds": seconds, "nll": nats, "grad_norm": norm.item(),
                "tokens_per_second": timed_tokens / seconds,
                **{k: v for k, v in load.items() if not k.rpartition("/")[2].isdigit()},
            }  # fmt: skip
            sums.clear()
            if seconds >= options.seconds:
                return


def balance(line: dict[str, float]) -> dict[str, float] | None:
    """Of all layers with experts: mean entropy, smallest and largest share of an expert."""
    by_kind = {
        kind: [v for k, v in line.items() if k.endswith(f"/{kind}")]
        for kind in ("entropy", "min_share", "max_share")
    }
    if not by_kind["entropy"]:
        return None
    return {
        "entropy": statistics.mean(by_kind["entropy"]),
        "min_share": min(by_kind["min_share"]),
        "max_share": max(by_kind["max_share"]),
    }


def summarize(out: Path) -> None:
    """The table: sizes, speed relative to the dense model, loss at equal tokens, balance at the end."""
    curves = {
        path.stem: list(read_jsonl(path))
        for member in MEMBERS
        if (path := out / f"{member}.jsonl").is_file()
    }
    curves = {member: lines for member, lines in curves.items() if lines}
    common = min(lines[-1]["tokens"] for lines in curves.values())
    dense = curves.get("qwen3")
    print(f"\nloss at {common:,} tokens, mean of the {LOG_EVERY} steps before")
    print(
        "| member | total | active | KV bytes a token | tokens/s | of dense | nats/token | entropy "
        "| min share | max share |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    table = {}
    for member, lines in curves.items():
        info = json.loads((out / f"{member}.json").read_text(encoding="utf-8"))
        speed = lines[-1]["tokens_per_second"]
        at_common = [line for line in lines if line["tokens"] <= common][-1]
        ratio = speed / dense[-1]["tokens_per_second"] if dense else float("nan")
        even = balance(lines[-1])
        table[member] = {**info, "tokens_per_second": speed, "of_dense": ratio, "balance": even,
                         "nll_at_common_tokens": at_common["nll"], "common_tokens": common}  # fmt: skip
        last = " | | |" if even is None else (
            f" {even['entropy']:.3f} | {even['min_share']:.4f} | {even['max_share']:.4f} |"
        )  # fmt: skip
        print(
            f"| {member} | {info['total']:,} | {info['active']:,} | {info['cache_bytes']:,} | {speed:,.0f} | "
            f"{ratio:.2f} | {at_common['nll']:.3f} |{last}"
        )
    (out / "summary.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def draw(out: Path, picture: Path) -> None:
    """Four pictures in one: loss by tokens and by time, evenness and extremes of the load."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasSVG(figure)
    (by_tokens, by_time), (evenness, shares) = figure.subplots(2, 2)
    for number, member in enumerate(MEMBERS):
        lines = list(read_jsonl(out / f"{member}.jsonl"))
        if not lines:
            continue
        color, unbalanced = f"C{number}", member.endswith("unbalanced")
        style: dict[str, Any] = {
            "color": color,
            "linestyle": "--" if unbalanced else "-",
            "linewidth": 1.2,
        }
        nats = [line["nll"] for line in lines]
        by_tokens.plot([line["tokens"] / 1e6 for line in lines], nats, label=member, **style)
        by_time.plot([line["seconds"] for line in lines], nats, **style)
        even = [(line["step"], b) for line in lines if (b := balance(line)) is not None]
        if even:
            steps = [step for step, _ in even]
            evenness.plot(steps, [b["entropy"] for _, b in even], label=member, **style)
            shares.plot(steps, [b["max_share"] for _, b in even], label=f"{member}, max", **style)
            shares.plot(steps, [b["min_share"] for _, b in even], **{**style, "linewidth": 0.7})
    by_tokens.set(title="loss by tokens", xlabel="million tokens", ylabel="nats per token")
    by_time.set(title="loss by time", xlabel="seconds, compilation not counted")
    evenness.set(title="evenness of the load, mean of layers (entropy, 1 = even)", xlabel="step")
    shares.set(title="largest and smallest share of an expert", xlabel="step")
    for axes in (by_tokens, by_time, evenness, shares):
        axes.grid(alpha=0.3)
    for axes in (by_tokens, evenness):
        axes.legend(fontsize=7)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, format="svg", metadata={"Date": None})
    print(f"drawn: {picture}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("shards", type=Path, nargs="?")
    parser.add_argument("--only", nargs="+", choices=MEMBERS, default=list(MEMBERS))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=Path("runs/family"))
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the script")
    parser.add_argument("--draw", type=Path, nargs=2, metavar=("OUT", "PICTURE"))
    options = parser.parse_args()
    if options.draw:
        summarize(options.draw[0])
        draw(*options.draw)
        return
    if options.shards is None:
        parser.error("SHARDS is needed")
    options.out.mkdir(parents=True, exist_ok=True)
    shards = TokenShards(options.shards)
    rows = PackedRows(shards, options.size)
    for member in options.only:
        config = shape(member, shards.vocab_size, options.size, options.tiny)
        info = parameter_counts(config)._asdict() | {
            "class": config.model_type, "cache_bytes": cache_bytes_per_token(config),
            "torch": torch.__version__, "rows": options.rows, "size": options.size,
            "device": "cpu" if options.cpu or not torch.cuda.is_available() else torch.cuda.get_device_name(),
        }  # fmt: skip
        (options.out / f"{member}.json").write_text(
            json.dumps(info, indent=2) + "\n", encoding="utf-8"
        )
        line: dict[str, float] = {}
        began = time.perf_counter()
        with (options.out / f"{member}.jsonl").open("w", encoding="utf-8", buffering=1) as file:
            for line in train(config, rows, options):
                file.write(json.dumps(line) + "\n")
        print(
            f"{member:24} {info['active'] / 1e6:6.1f}M active of {info['total'] / 1e6:6.1f}M  "
            f"{line['tokens_per_second']:12,.0f} tokens/s  {line['nll']:.3f} nats after "
            f"{line['tokens'] / 1e6:.1f}M tokens; {time.perf_counter() - began:.0f} s in all",
            flush=True,
        )  # fmt: skip
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch._dynamo.reset()
    summarize(options.out)
    try:
        draw(options.out, options.out / "family.svg")
    except ModuleNotFoundError as error:
        print(f"{error}: draw where it is installed, --draw {options.out} docs/pictures/family.svg")


if __name__ == "__main__":
    main()

"""How a run of pretrain, sft or dpo is put together.

A stage gives a model, a loss and samples; `train` composes them with data, optimizer, strategy and
checkpoints, and runs the one Trainer. Composition only; the settings are in run_config.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from mengya.batch import Batch
from mengya.config import UserError, load_config, save_config
from mengya.data.batch_size import BatchSize
from mengya.data.datasets import PackedRows
from mengya.data.encode import Kind
from mengya.data.loader import batches, validation_batches
from mengya.data.mixture import Mixture
from mengya.data.provenance import step_documents
from mengya.data.shards import TokenShards
from mengya.losses.dpo import DPO
from mengya.losses.linear_nll import linear_nll
from mengya.losses.next_token import NextToken
from mengya.losses.token_nll import Loss, log_partition, token_nll
from mengya.models.causal_lm import CausalLM
from mengya.models.flops import training_flops
from mengya.models.shifted_groups import check_shifted_groups
from mengya.runtime import (
    pick_autocast_dtype,
    pick_device,
    seed_step,
)
from mengya.stages.run_config import RunConfig, Source
from mengya.tokenizer.load import load_tokenizer, tokenizer_hash
from mengya.training.checkpoint import Checkpoints, TrainState
from mengya.training.checkpointer import Checkpointer
from mengya.training.hardware import peak_flops
from mengya.training.metrics import MetricsLog
from mengya.training.optim import build_optimizers
from mengya.training.report import write_report
from mengya.training.strategy import AutoValues, SingleDevice, pick_strategy
from mengya.training.trainer import Trainer

# A run resumed with another of these would not be the run that was stopped.
_FIXED = (
    "seed",
    "data",
    "global_batch_size",
    "batch_ramp",
    "neftune_alpha",
    "save_dtype",
    "shifted_sparse_ratio",
)


@dataclass
class TrainedModel:
    """What a stage gives to be trained.

    Attributes:
        module: its parameters with requires_grad are trained.
        tokenizer_folder: what the shards must have been made with.
        tensors: the tensors that `write` needs, as they are now.
        write: writes the standard folder (or adapter folder) from a copy of them, in another thread.
        restore: loads the weights of a checkpoint of this run into the module, or a whole copy of it.
    """

    module: CausalLM
    tokenizer_folder: Path
    tensors: Callable[[], Mapping[str, torch.Tensor]]
    write: Callable[[Path, Mapping[str, torch.Tensor]], object]
    restore: Callable[[CausalLM, Path], object]


def check_run(config: RunConfig) -> None:
    """Refuse a run folder that holds another run, or one that is not to be resumed."""
    latest = Checkpoints(config.run_dir, config.loop.keep_last).latest()
    if latest is None:
        return
    if not config.resume:
        raise UserError(
            f"{config.run_dir} already holds a run with checkpoints up to {latest.name}; "
            "write resume=true to go on with it, or choose another run_dir"
        )
    before = load_config(type(config), config.run_dir / "config.yaml").model_dump(mode="json")
    now = config.model_dump(mode="json")
    # Left out, it is what the run began with (`_full_batch`), for any number of processes.
    now["global_batch_size"] = now["global_batch_size"] or before["global_batch_size"]
    changed = [
        f"{name}: was {before[name]}, now {now[name]}"
        for name in (*_FIXED, "model", "init_from", "stretch", "lora")
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise UserError(
            f"{config.run_dir} cannot be resumed with other settings:\n  - "
            + "\n  - ".join(changed)
            + "\nrestore them, or start a new run_dir with init_from"
        )


def open_strategy(config: RunConfig) -> SingleDevice:
    """Device, precision and processes of this run; random numbers are seeded for the initial weights."""
    device = pick_device(config.device)
    auto = AutoValues(
        config.micro_batch_size, config.global_batch_size, config.optimizer.max_grad_norm
    )
    dtype = pick_autocast_dtype(config.precision, device)
    strategy = pick_strategy(config.strategy, device, dtype, auto)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    seed_step(config.seed, -1, 0)
    return strategy


def uses_compile(config: RunConfig, strategy: SingleDevice) -> bool:
    return strategy.device.type == "cuda" if config.compile is None else config.compile


def pick_token_nll(config: RunConfig, strategy: SingleDevice) -> Callable[..., torch.Tensor]:
    """token_nll, fused by the compiler where the run compiles."""
    return torch.compile(token_nll) if uses_compile(config, strategy) else token_nll


def pick_next_token(
    config: RunConfig, strategy: SingleDevice, model: CausalLM, z_loss: float, few_labels: bool
) -> NextToken:
    """The loss of pretraining and SFT in the form that this device runs best.

    Args:
        few_labels: many positions have no label (SFT).
    """
    compiled = uses_compile(config, strategy)
    if strategy.device.type == "cuda" and type(model.lm_head) is nn.Linear:
        return NextToken(z_loss=z_loss, linear_nll=linear_nll)
    return NextToken(
        pick_token_nll(config, strategy),
        labelled_only=few_labels and not compiled,
        z_loss=z_loss,
        log_partition=torch.compile(log_partition) if compiled else log_partition,
    )


def train(
    name: str,
    config: RunConfig,
    strategy: SingleDevice,
    trained: TrainedModel,
    loss: Loss,
    kind: Kind,
    sample: Callable[[CausalLM], list[dict[str, Any]]] | None,
    mixed_in: Sequence[Kind] = (),
) -> bool:
    """Compose the run and train it to its end, or to a signal; then write report.html.

    Args:
        kind: of the shards; `mixed_in` are kinds that may stand beside it in data.train.

    Returns:
        Whether the run reached its end.
    """
    model = trained.module
    console = Console(stderr=True, quiet=strategy.rank > 0)
    folder = trained.tokenizer_folder
    train_rows = _open_rows(config, config.data.train, (kind, *mixed_in), folder, console)
    held_out = None
    if config.data.validation:
        held_out = _open_rows(config, config.data.validation, (kind,), folder, console)
    full_batch = _full_batch(config, strategy.world_size)
    batch_size = BatchSize(full_batch, config.batch_ramp)
    max_steps = config.max_steps or batch_size.steps_for((config.epochs or 0) * len(train_rows))

    def documents(step: int) -> Iterator[dict[str, Any]]:
        tokenizer = load_tokenizer(trained.tokenizer_folder)
        rows = range(batch_size.first_row(step), batch_size.first_row(step + 1))
        return step_documents(train_rows, rows, lambda ids: str(tokenizer.decode(ids)))

    model.neftune_alpha = config.neftune_alpha
    if config.shifted_sparse_ratio is not None:
        check_shifted_groups(model.config)
        model.shifted_sparse_ratio = config.shifted_sparse_ratio
    model.gradient_checkpointing = config.gradient_checkpointing
    size = _model_size(model)
    flops_per_token = _flops_per_token(model, train_rows, loss)
    strategy.place(model, uses_compile(config, strategy))
    optimizers = build_optimizers(model, config.optimizer, strategy.replicas)
    module = strategy.wrap(model, optimizers)
    checkpointer = Checkpointer(
        config.run_dir,
        config.loop,
        strategy,
        model,
        optimizers,
        model_tensors=trained.tensors,
        write_model=trained.write,
        read_model=trained.restore,
        master=lambda: trainable(model) if config.save_dtype != "float32" else None,
        documents=documents,
    )
    state = checkpointer.resume(_warn)
    if strategy.rank == 0:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        resolved = config.model_copy(update={"global_batch_size": full_batch})
        save_config(resolved, config.run_dir / "config.yaml")
        _say_plan(name, config, size, train_rows, batch_size, max_steps, state)

    def validation() -> Iterable[Batch]:
        assert held_out is not None
        return validation_batches(
            held_out,
            config.micro_batch_size,
            strategy.rank,
            strategy.world_size,
            config.data.max_validation_rows,
        )

    def steps_from(step: int) -> Iterator[list[Batch]]:
        return batches(
            train_rows,
            start_step=step,
            batch_size=batch_size,
            micro_batch_size=config.micro_batch_size,
            rank=strategy.rank,
            world_size=strategy.world_size,
        )

    trainer = Trainer(
        model=model,
        module=module,
        loss=loss,
        batches=steps_from,
        optimizers=optimizers,
        strategy=strategy,
        schedule=config.schedule,
        loop=config.loop,
        max_steps=max_steps,
        max_grad_norm=config.optimizer.max_grad_norm,
        seed=config.seed,
        run_dir=config.run_dir,
        name=name,
        checkpointer=checkpointer,
        open_metrics=partial(
            MetricsLog,
            config.run_dir,
            trackers=config.trackers,
            run_config=config.model_dump(mode="json"),
        ),
        validation=validation if held_out is not None else None,
        characters=_characters(held_out) if config.data.max_validation_rows is None else None,
        sample=sample,
        flops_per_token=flops_per_token,
        peak_flops=peak_flops(strategy.device, strategy.autocast_dtype),
        state=state,
    )
    done = trainer.fit()
    if strategy.rank == 0:
        report = config.run_dir / "report.html"
        write_report(report, f"mengya {name}: {config.run_dir.name}", [config.run_dir])
        end = "done" if done else "stopped and saved; go on with resume=true"
        console.print(
            f"{name} {end}: {checkpointer.checkpoints.latest()}, curves in {report}",
            highlight=False,
        )
    strategy.close()
    return done


def _full_batch(config: RunConfig, world_size: int) -> int:
    """Rows per step; where the setting is left out, a resumed run keeps what it began with."""
    if config.global_batch_size is not None:
        return config.global_batch_size
    earlier = config.run_dir / "config.yaml"
    if config.resume and earlier.is_file():
        before = load_config(type(config), earlier).global_batch_size
        if before is not None:
            return before
    return config.micro_batch_size * world_size


def _open_rows(
    config: RunConfig,
    sources: Sequence[Source],
    kinds: Sequence[Kind],
    tokenizer_folder: Path,
    console: Console,
) -> Mixture:
    """The rows of the sources; at least one must be of the first of `kinds`."""
    fingerprint = tokenizer_hash(tokenizer_folder)
    opened = [TokenShards(source.path) for source in sources]
    if all(shards.kind != kinds[0] for shards in opened):
        kinds = kinds[:1]
    parts: list[tuple[PackedRows, float | None]] = []
    for source, shards in zip(sources, opened, strict=True):
        shards.require(*kinds, tokenizer_sha256=fingerprint)
        rows = PackedRows(shards, config.data.sequence_length, config.seed)
        if rows.dropped_pairs:
            console.print(
                f"{source.path}: {rows.dropped_pairs} pairs are too long for "
                f"sequence_length={config.data.sequence_length} and are left out"
            )
        parts.append((rows, source.weight))
    return Mixture(parts, config.seed)


def _characters(rows: Mixture | None) -> int | None:
    if rows is None:
        return None
    return sum(part.shards.manifest["characters"] for part in rows.sources)


def _warn(text: str) -> None:
    Console(stderr=True).print(text, style="bold red", markup=False, soft_wrap=True)


def _flops_per_token(model: CausalLM, rows: Mixture, loss: Loss) -> float:
    labelled = rows.labelled if isinstance(loss, NextToken) and loss.labelled_only else 1.0
    return training_flops(model, rows.visible, labelled, reference=isinstance(loss, DPO)).total


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that are trained, by parameter name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def _model_size(model: nn.Module) -> tuple[int, int]:
    """Parameters, and those of them that are trained; before an engine divides them."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def _say_plan(
    name: str,
    config: RunConfig,
    size: tuple[int, int],
    rows: Mixture,
    batch_size: BatchSize,
    max_steps: int,
    state: TrainState,
) -> None:
    parameters, trainable = size
    count, length = batch_size.first_row(max_steps), config.data.sequence_length
    grows = "" if batch_size.ramp is None else f"{batch_size.at(0)} to "
    text = (
        f"{name}: {parameters / 1e6:.2f}M parameters ({trainable / parameters:.1%} trained), "
        f"{max_steps} steps of {grows}{batch_size.at(max_steps)} x {length} = {count * length:,} tokens, "
        f"{count / len(rows):.2f} epochs"
    )
    if state.step:
        text += f"; resuming at step {state.step}"
    Console(stderr=True).print(text, highlight=False)

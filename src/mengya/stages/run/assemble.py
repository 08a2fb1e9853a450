"""How a run of pretrain, sft or dpo is put together.

A stage gives a model, a loss and samples; `train` composes them with data, optimizer, strategy and
checkpoints, and runs the one Trainer. Composition only: settings are in run_config.py, losses in
pick_loss.py, rows in open_rows.py, and what a resumed run must share in resumed_run.py.
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
from mengya.config import save_config
from mengya.data.prepare.encode import Kind
from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.loader import batches, validation_batches
from mengya.data.rows.mixture import Mixture
from mengya.data.rows.provenance import step_documents
from mengya.losses.dpo import DPO
from mengya.losses.next_token import NextToken
from mengya.losses.token_nll import Loss
from mengya.models.causal_lm import CausalLM
from mengya.models.extensions.shifted_groups import check_shifted_groups
from mengya.models.fp8_layers import use_fp8
from mengya.planning.flops import training_flops
from mengya.planning.hardware import peak_flops
from mengya.runtime.device import init_device, pick_autocast_dtype
from mengya.runtime.seeding import seed_step
from mengya.stages.run.resume import full_batch
from mengya.stages.run.rows import open_rows
from mengya.stages.run.summary import model_size, run_summary
from mengya.tokenizer.load import load_tokenizer
from mengya.training.checkpoint.manager import Checkpointer
from mengya.training.distributed.build import AutoValues, SingleDevice, pick_strategy
from mengya.training.optim.build import build_optimizers
from mengya.training.run_config import RunConfig
from mengya.training.telemetry.metrics import MetricsLog
from mengya.training.telemetry.report import write_report
from mengya.training.trainer import Trainer


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


def open_strategy(config: RunConfig) -> SingleDevice:
    """Device, precision and processes of this run; random numbers are seeded for the initial weights."""
    device = init_device(config.device)
    auto = AutoValues(
        config.micro_batch_size, config.global_batch_size, config.optimizer.max_grad_norm
    )
    dtype = pick_autocast_dtype(config.precision, device)
    strategy = pick_strategy(config.strategy, device, dtype, auto)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    seed_step(config.seed, -1, 0)
    return strategy


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
    train_rows = open_rows(config, config.data.train, (kind, *mixed_in), folder, console)
    held_out = None
    if config.data.validation:
        held_out = open_rows(config, config.data.validation, (kind,), folder, console)
    batch_size = BatchSize(full_batch(config, strategy.world_size), config.batch_ramp)
    max_steps = config.max_steps or batch_size.steps_for((config.epochs or 0) * len(train_rows))

    def documents(step: int) -> Iterator[dict[str, Any]]:
        tokenizer = load_tokenizer(folder)
        rows = range(batch_size.first_row(step), batch_size.first_row(step + 1))
        return step_documents(train_rows, rows, lambda ids: str(tokenizer.decode(ids)))

    _set_training_modes(model, config, strategy.device)
    size = model_size(model)
    flops_per_token = _flops_per_token(model, train_rows, loss)
    strategy.place(model, config.compiles(strategy.device.type))
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
    warn = partial(console.print, style="bold red", markup=False, soft_wrap=True)
    state = checkpointer.resume(warn)
    if strategy.rank == 0:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        resolved = config.model_copy(update={"global_batch_size": batch_size.rows})
        save_config(resolved, config.run_dir / "config.yaml")
        summary = run_summary(name, config, size, train_rows, batch_size, max_steps, state)
        console.print(summary, highlight=False)

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


def _set_training_modes(model: CausalLM, config: RunConfig, device: torch.device) -> None:
    if config.precision == "fp8":
        use_fp8(model, device)
    model.neftune_alpha = config.neftune_alpha
    if config.shifted_sparse_ratio is not None:
        check_shifted_groups(model.config)
        model.shifted_sparse_ratio = config.shifted_sparse_ratio
    model.gradient_checkpointing = config.gradient_checkpointing


def _characters(rows: Mixture | None) -> int | None:
    if rows is None:
        return None
    return sum(part.shards.manifest["characters"] for part in rows.sources)


def _flops_per_token(model: CausalLM, rows: Mixture, loss: Loss) -> float:
    labelled = rows.labelled if isinstance(loss, NextToken) and loss.labelled_only else 1.0
    return training_flops(model, rows.visible, labelled, reference=isinstance(loss, DPO)).total


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that are trained, by parameter name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

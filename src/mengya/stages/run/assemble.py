"""How a run of pretrain, sft or dpo is put together.

A stage gives a model, a loss and samples; `train` composes them with data, optimizer, strategy and
checkpoints, and runs the one Trainer. Composition only: settings are in training/run_config.py, losses
in losses.py, shards in rows.py, and what a resumed run must have in common with the earlier one in
resume.py.
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
from mengya.data.prepare.encoding.plan import Kind
from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.loader import batches, validation_batches
from mengya.data.rows.mixing.metrics import source_metrics
from mengya.data.rows.mixing.plan import MixturePlan, plan_mixture
from mengya.data.rows.mixing.use import MixtureUse, mixture_use
from mengya.data.rows.mixture import Mixture
from mengya.data.rows.provenance import step_documents
from mengya.data.training_record import TrainedOn, training_record, write_training_record
from mengya.errors import UserError
from mengya.losses.dpo import DPO
from mengya.losses.next_token import NextToken
from mengya.losses.token_nll import Loss
from mengya.models.adapters.token_rows import trained_rows
from mengya.models.causal_lm import CausalLM
from mengya.models.config.validation import untrained_router
from mengya.models.extensions import training_pattern
from mengya.models.fp8_layers import use_fp8
from mengya.models.router import Router
from mengya.planning.estimate import estimate
from mengya.planning.flops import training_flops
from mengya.planning.hardware import peak_flops
from mengya.planning.inputs import Data as PlannedData
from mengya.planning.inputs import Hardware, Verb
from mengya.planning.lint import LintWarning, lint_run
from mengya.runtime.seeding import seed_step
from mengya.stages.run.resume import check_rows, full_batch, new_run
from mengya.stages.run.rows import open_rows
from mengya.stages.run.standing import standing_of_run
from mengya.stages.run.yardsticks import check_yardsticks, yardstick_figures
from mengya.tokenizer.load import load_tokenizer
from mengya.training.checkpoint.manager import CheckpointManager
from mengya.training.distributed.registry import build_strategy
from mengya.training.distributed.single import SingleDevice
from mengya.training.distributed.strategy import Strategy
from mengya.training.execution import Execution, execution_on, resolve_execution
from mengya.training.optim.build import build_optimizers
from mengya.training.optim.layout import run_layout
from mengya.training.run_config import RunConfig
from mengya.training.run_length import run_length
from mengya.training.state import TrainState
from mengya.training.telemetry.events import EventLog
from mengya.training.telemetry.metrics import MetricsLog
from mengya.training.telemetry.progress import LOG, ProgressBar
from mengya.training.telemetry.report import write_report
from mengya.training.telemetry.yardsticks import Yardsticks
from mengya.training.trainer import Data, Observer, Optimization, Trainer


@dataclass
class TrainedModel:
    """What a stage gives to be trained.

    Attributes:
        module: its parameters with requires_grad are trained.
        tokenizer_folder: what the shards must have been made with.
        tensors: the tensors that `write` needs, as they are now.
        write: writes the standard folder (or adapter folder) from a copy of them, in another thread.
        restore: loads the weights of a checkpoint of this run into the module, or a full copy of it.
    """

    module: CausalLM
    tokenizer_folder: Path
    tensors: Callable[[], Mapping[str, torch.Tensor]]
    write: Callable[[Path, Mapping[str, torch.Tensor]], object]
    restore: Callable[[CausalLM, Path], object]


@dataclass(frozen=True)
class _RunData:
    """The rows of a run, and how many steps they make."""

    train: Mixture
    use: MixtureUse
    held_out: Mixture | None
    batch_size: BatchSize
    max_steps: int


def open_strategy(config: RunConfig) -> Strategy:
    """Device, precision and processes of this run; random numbers are seeded for the initial weights."""
    execution = resolve_execution(config)
    strategy = build_strategy(config, execution)
    if execution.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    seed_step(config.seed, -1, 0)
    return strategy


def train(
    name: Verb,
    config: RunConfig,
    strategy: Strategy,
    trained: TrainedModel,
    loss: Loss,
    kind: Kind,
    sample: Callable[[CausalLM], list[dict[str, Any]]] | None,
    mixed_in: Sequence[Kind] = (),
) -> bool:
    """Compose the run and train it to its end, or to a signal; then write report.html.

    Args:
        kind: of the shards; `mixed_in` are kinds that data.train may have in addition.

    Returns:
        Whether the run reached its end.
    """
    model = trained.module
    check_yardsticks(config)
    console = Console(stderr=True, quiet=strategy.rank > 0)
    data = _open_data(config, strategy, trained.tokenizer_folder, (kind, *mixed_in), console)

    length = config.data.sequence_length // (
        2 if kind == "preference" else 1
    )  # a row has both sides
    length = max(length, model.config.training_sequence_length or 0)
    model.config = model.config.model_copy(update={"training_sequence_length": length})
    reason = untrained_router(model.config)
    if reason and any(m.weight.requires_grad for m in model.modules() if isinstance(m, Router)):
        console.print(f"warning: {reason}", highlight=False, soft_wrap=True)
    _set_training_modes(model, config, strategy.execution)
    size, rows = _model_size(model), trained_rows(model)
    advice = _advice(name, config, model, data, strategy) if strategy.rank == 0 else []
    flops_per_token = _flops_per_token(model, data.train, loss)
    start = getattr(config, "init_from", None)
    record = training_record(name, (part.shards for part in data.train.sources), start)
    strategy.place(model)
    optimizers = build_optimizers(model, config.optimizer, strategy.dp_group)
    layout = run_layout(optimizers, model, config.optimizer)
    module = strategy.wrap(model, optimizers)

    log = config.run_dir / LOG if strategy.rank == 0 else None
    progress = ProgressBar(name, data.max_steps, shown=strategy.rank == 0, log=log)
    checkpoints = CheckpointManager(
        config.run_dir,
        config.loop,
        strategy,
        model,
        optimizers,
        model_tensors=trained.tensors,
        write_model=partial(_write_with_record, trained.write, record),
        read_model=trained.restore,
        warn=progress.warn,
        master=lambda: trainable(model) if config.save_dtype != "float32" else None,
        documents=partial(_documents, data, trained.tokenizer_folder),
        write_layout=layout.write,
        check=lambda checkpoint: layout.check(checkpoint, new_run(config, checkpoint)),
    )
    state = checkpoints.resume()
    events = EventLog(config.run_dir if strategy.rank == 0 else None)
    if strategy.rank == 0:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        events.begin(state.step, strategy.device, strategy.world_size)
        write_training_record(record, config.run_dir)
        resolved = config.model_copy(update={"global_batch_size": data.batch_size.rows})
        save_config(resolved, config.run_dir / "config.yaml")
        progress.say(_summary(name, config, size, rows, data, state))
        for line in data.use.lines():
            progress.say(line)
        for warning in advice:
            progress.say(f"warning: {warning.message}; {warning.remedy} ({warning.rule})")

    yardsticks = None
    if config.loop.yardsticks and strategy.rank == 0:
        chat = kind != "text"
        figures = yardstick_figures(config, trained.tokenizer_folder, chat, progress.say)
        yardsticks = Yardsticks(figures, config.loop.yardstick_every, progress.say)

    trainer = Trainer(
        model=model,
        module=module,
        loss=loss,
        data=_batches(config, strategy, data),
        optimization=Optimization(
            optimizers, config.schedule, data.max_steps, config.optimizer.max_grad_norm
        ),
        strategy=strategy,
        observer=Observer(
            progress=progress,
            events=events,
            open_metrics=partial(
                MetricsLog,
                config.run_dir,
                trackers=config.trackers,
                run_config=config.model_dump(mode="json"),
            ),
            sample=sample,
            yardsticks=yardsticks,
            flops_per_token=flops_per_token,
            peak_flops=peak_flops(strategy.device, strategy.execution.autocast_dtype),
        ),
        checkpoints=checkpoints,
        loop=config.loop,
        seed=config.seed,
        run_dir=config.run_dir,
        state=state,
    )
    done = trainer.fit()
    if strategy.rank == 0:
        report = config.run_dir / "report.html"
        title, run_dir = f"mengya {name}: {config.run_dir.name}", config.run_dir
        write_report(report, title, [run_dir], sections=standing_of_run(run_dir))
        end = "done" if done else "stopped and saved; resume with resume=true"
        progress.say(f"{name} {end}: {checkpoints.store.latest()}, curves in {report}")
    strategy.close()
    return done


def _write_with_record(
    write: Callable[[Path, Mapping[str, torch.Tensor]], object],
    record: list[TrainedOn],
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
) -> None:
    write(folder, tensors)
    write_training_record(record, folder)


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that are trained, by parameter name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def _open_data(
    config: RunConfig, strategy: Strategy, tokenizer: Path, kinds: Sequence[Kind], console: Console
) -> _RunData:
    parts = open_rows(config, config.data.train, kinds, tokenizer, console)
    batch_rows = full_batch(config, strategy.world_size)
    lengths = [len(part) for part in parts]
    length = run_length(config, sum(lengths), batch_rows)

    def plan(settings: RunConfig) -> MixturePlan:
        return plan_mixture(settings.data, lengths, run_length(settings, sum(lengths), batch_rows))

    planned = plan(config)
    check_rows(config, plan, length.batch_size)
    train_rows = Mixture(
        list(zip(parts, planned.weights, strict=True)), config.seed, planned.segments, length.rows
    )
    use = mixture_use(config.data, planned, train_rows, length)
    held_out = None
    if sources := config.data.validation:
        held_parts = open_rows(config, sources, kinds[:1], tokenizer, console)
        weights = [source.weight for source in sources]
        held_out = Mixture(list(zip(held_parts, weights, strict=True)), config.seed)
    return _RunData(train_rows, use, held_out, length.batch_size, length.max_steps)


def _batches(config: RunConfig, strategy: Strategy, data: _RunData) -> Data:
    """The micro-batches of this rank."""
    rank, world_size = strategy.rank, strategy.world_size
    max_rows, held_out = config.data.max_validation_rows, data.held_out

    def steps_from(step: int) -> Iterator[list[Batch]]:
        return batches(
            data.train,
            start_step=step,
            batch_size=data.batch_size,
            micro_batch_size=config.micro_batch_size,
            rank=rank,
            world_size=world_size,
        )

    def seen(since: int, step: int) -> dict[str, float]:
        return source_metrics(data.train, config.data.names, data.batch_size, since, step)

    if held_out is None:
        return Data(steps_from, seen=seen)

    def validation() -> Iterable[Batch]:
        return validation_batches(
            held_out, config.micro_batch_size, rank, world_size, max_rows, config.seed
        )

    characters = _characters(held_out) if max_rows is None else None
    return Data(steps_from, validation, characters, config.data.sequence_length, seen)


def _advice(
    verb: Verb, config: RunConfig, model: CausalLM, data: _RunData, strategy: Strategy
) -> list[LintWarning]:
    """What `mengya plan` would warn of, before an engine shards the model."""
    rows = data.train
    known = PlannedData(len(rows), rows.visible, rows.fill, labelled=1.0, use=data.use)
    hardware = Hardware(devices=strategy.world_size)
    return list(lint_run(estimate(verb, config, model, hardware, data=known)))


def _documents(data: _RunData, tokenizer_folder: Path, step: int) -> Iterator[dict[str, Any]]:
    """What is known of the documents of a step's batches, for the quarantine."""
    tokenizer = load_tokenizer(tokenizer_folder)
    rows = range(data.batch_size.first_row(step), data.batch_size.first_row(step + 1))
    return step_documents(data.train, rows, lambda ids: str(tokenizer.decode(ids)))


def documents_of_step(
    config: RunConfig, tokenizer_folder: Path, kinds: Sequence[Kind], step: int, console: Console
) -> Iterator[dict[str, Any]]:
    """The documents of step `step` (from 0) of a run with these settings, as `step_documents` has them."""
    strategy = SingleDevice(execution_on(torch.device("cpu"), None, config))
    return _documents(
        _open_data(config, strategy, tokenizer_folder, kinds, console), tokenizer_folder, step
    )


def _set_training_modes(model: CausalLM, config: RunConfig, execution: Execution) -> None:
    if model.config.quantization is not None:
        check_rounding(config, execution)
    if execution.fp8:
        use_fp8(model, execution.device)
    model.neftune_alpha = config.neftune_alpha
    model.training_pattern = training_pattern(model.config, config.shifted_sparse_ratio)
    model.gradient_checkpointing = config.gradient_checkpointing


def check_rounding(config: RunConfig, execution: Execution) -> None:
    """Refuse what would round other weights than the fp32 ones of the optimizer."""
    if execution.fp8:
        raise UserError(
            "precision=fp8 would round weights a second time that the model's quantization rounds; write "
            "precision=bf16 or precision=auto"
        )
    if config.save_dtype != "float32":
        raise UserError(
            f"save_dtype={config.save_dtype} would save other weights than those that the model's "
            "quantization rounds; write save_dtype=float32 (`mengya quantize` makes the small folder)"
        )
    if config.strategy.shards_weights and execution.autocast_dtype is not None:
        raise UserError(
            f"strategy.name={config.strategy.name} gathers weights in half precision, and the model's "
            "quantization rounds the fp32 ones; write strategy.name=ddp, or precision=fp32"
        )


def _characters(rows: Mixture) -> int:
    return sum(part.shards.manifest["characters"] for part in rows.sources)


def _flops_per_token(model: CausalLM, rows: Mixture, loss: Loss) -> float:
    labelled = rows.labelled if isinstance(loss, NextToken) and loss.labelled_only else 1.0
    return training_flops(model, rows.visible, labelled, reference=isinstance(loss, DPO)).total


def _model_size(model: nn.Module) -> tuple[int, int]:
    """Parameters, and those of them that are trained; before an engine shards them."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def _summary(
    name: str,
    config: RunConfig,
    size: tuple[int, int],
    token_rows: int,
    data: _RunData,
    state: TrainState,
) -> str:
    """How large the model is, how long the run, and where it starts.

    Args:
        size: of `_model_size`. token_rows: how many rows of tokens are trained next to an adapter.
    """
    parameters, trained = size
    batch_size, max_steps = data.batch_size, data.max_steps
    count, length = batch_size.first_row(max_steps), config.data.sequence_length
    grows = "" if batch_size.ramp is None else f"{batch_size.at(0)} to "
    share = f"{trained / parameters:.1%} trained"
    if trained < parameters:
        share = f"{trained:,} trained, {trained / parameters:.1%}"
    if token_rows:
        share += f", with {token_rows:,} token rows"
    text = (
        f"{name}: {parameters / 1e6:.2f}M parameters ({share}), "
        f"{max_steps} steps of {grows}{batch_size.at(max_steps)} x {length} = {count * length:,} tokens, "
        f"{count / len(data.train):.2f} epochs"
    )
    if state.step:
        text += f"; resuming at step {state.step}"
    return text

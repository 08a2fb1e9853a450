"""Our training step as the stages put it together: loader, model, loss, strategy, optimizer.

The loop around it (schedule, logs, checkpoints) is the Trainer's and not part of what is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from mengya.batch import Batch
from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.datasets import RowSource
from mengya.data.rows.loader import batches
from mengya.kernels.cross_entropy import linear_nll
from mengya.losses.next_token import NextToken
from mengya.losses.token_nll import Loss, token_nll
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.fp8_layers import use_fp8
from mengya.training.distributed.single import SingleDevice
from mengya.training.health.watchdog import Watchdog
from mengya.training.optim.build import build_optimizers
from mengya.training.optim.config import OptimizerConfig
from mengya.training.run_config import LoopConfig
from mengya.training.state import TrainState


def ours(
    config: ModelConfig, strategy: SingleDevice, *, compiled: bool = True, single_graph: bool = False,
    logits: bool = False, waits: bool = False, fp8: bool = False,
    optimizer: OptimizerConfig | None = None,
) -> Callable[[Batch], None]:  # fmt: skip
    """A training step as the stages run it, with `open_strategy`'s precision of fp32 products.

    Args:
        compiled: layer by layer, and the loss.
        single_graph: the model as one graph instead.
        logits: take the loss of the full batch's logits, not chunk by chunk.
        waits: read the norm of every step at once, not two steps later.
        fp8: feed-forward layers, as with precision=fp8.
    """
    model = CausalLM(config).to(strategy.device)
    if fp8:
        use_fp8(model, strategy.device)
    if compiled:
        model.compile() if single_graph else model.compile_layers()
    loss = next_token(strategy, compiled, logits)
    return training_step(model, loss, strategy, optimizer, waits)


def next_token(strategy: SingleDevice, compiled: bool, logits: bool = False) -> NextToken:
    """The loss of pretraining and SFT as `stages/run/losses.py` makes it."""
    nll = torch.compile(token_nll) if compiled else token_nll
    chunked = strategy.device.type == "cuda" and not logits
    return NextToken(nll, linear_nll=linear_nll if chunked else None)


def training_step(
    model: CausalLM, loss: Loss, strategy: SingleDevice, optimizer: OptimizerConfig | None = None,
    waits: bool = False,
) -> Callable[[Batch], None]:  # fmt: skip
    """What the Trainer does with one batch a step, but for its metrics."""
    torch.set_float32_matmul_precision("high")
    model.train()
    optimizers = build_optimizers(model, optimizer or OptimizerConfig())
    parameters = [p for p in model.parameters() if p.requires_grad]
    watchdog = Watchdog(LoopConfig(), TrainState(), print)

    def step(batch: Batch) -> None:
        items = loss.items(batch)
        if (pending := watchdog.pending_loss()) is not None:
            watchdog.resolve(pending)
        batch = batch.to(strategy.device, non_blocking=True)
        with strategy.autocast():
            result = loss(model, batch)
        strategy.backward(result.loss / items)
        norm = strategy.step(optimizers, parameters, 1.0)
        watchdog.record(0, items, 0, result.loss, norm)
        if waits:
            assert norm.isfinite()

    return step


def real_tokens(batch: Batch) -> int:
    return int((batch.document_ids >= 0).sum())


def steps_of(rows: RowSource, size: int) -> Iterator[Batch]:
    """Batches of `size` rows through the loader, made ahead in its thread."""
    for (batch,) in batches(rows, start_step=0, batch_size=BatchSize(size), micro_batch_size=size):
        yield batch

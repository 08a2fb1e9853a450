"""What the loop does with batches that it must not train on, and what it reports."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mengya.batch import IGNORE_INDEX, Batch
from mengya.errors import UserError
from mengya.losses.next_token import NextToken
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.training.checkpoint.manager import CheckpointManager
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution
from mengya.training.optim.build import build_optimizers
from mengya.training.optim.config import OptimizerConfig
from mengya.training.run_config import LoopConfig
from mengya.training.schedule import ScheduleConfig
from mengya.training.state import TrainState
from mengya.training.telemetry.metrics import MetricsLog
from mengya.training.telemetry.progress import ProgressBar
from mengya.training.trainer import Data, Observer, Optimization, Trainer

VOCAB, ROWS, SIZE = 50, 2, 16


def tiny_model() -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(
        ModelConfig(
            vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1,
        )
    )  # fmt: skip


def random_batch(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, VOCAB, (ROWS, SIZE + 1), generator=generator)
    return Batch(
        input_ids=ids[:, :-1],
        labels=ids[:, 1:].clone(),
        position_ids=torch.arange(SIZE).expand(ROWS, SIZE),
        document_ids=torch.zeros(ROWS, SIZE, dtype=torch.int64),
        cu_seqlens=torch.tensor([0, SIZE, 2 * SIZE], dtype=torch.int32),
    )


def all_masked(batch: Batch) -> Batch:
    return dataclasses.replace(batch, labels=torch.full_like(batch.labels, IGNORE_INDEX))


class Poisoned(NextToken):
    """Next-token loss that is infinite when the first token of a batch is the last id."""

    def __call__(self, model, batch):
        result = super().__call__(model, batch)
        poison = float("inf") if int(batch.input_ids[0, 0]) == VOCAB - 1 else 1.0
        return result._replace(loss=result.loss * poison)


def make_trainer(run_dir: Path, model: CausalLM, data: list[Batch], **more: object) -> Trainer:
    def steps(start: int) -> Iterator[list[Batch]]:
        return ([batch] for batch in data[start:])

    optimizers = build_optimizers(model, OptimizerConfig(lr=1e-2))
    settings: dict[str, Any] = {
        "strategy": SingleDevice(Execution(torch.device("cpu"))),
        "loop": LoopConfig(log_every=1, save_every=4, max_skipped_in_a_row=3),
        "loss": Poisoned(),
        "batches": steps,
        "schedule": ScheduleConfig(),
        "max_steps": len(data),
        "write_model": write_model,
        "documents": lambda step: [],
        "resume": False,
        "flops_per_token": 0.0,
        "peak_flops": None,
    }
    assert more.keys() <= settings.keys()
    settings |= more
    strategy, loop = settings["strategy"], settings["loop"]
    progress = ProgressBar("test", settings["max_steps"], shown=strategy.rank == 0)
    checkpoints = CheckpointManager(
        run_dir,
        loop,
        strategy,
        model,
        optimizers,
        model_tensors=model.state_dict,
        write_model=settings["write_model"],
        read_model=lambda m, folder: m.load_state_dict(load_file(folder / "model.safetensors")),
        warn=progress.warn,
        documents=settings["documents"],
    )
    return Trainer(
        model=model,
        module=strategy.wrap(model, optimizers),
        loss=settings["loss"],
        data=Data(settings["batches"]),
        optimization=Optimization(optimizers, settings["schedule"], settings["max_steps"], 1.0),
        strategy=strategy,
        observer=Observer(
            progress,
            open_metrics=lambda step: MetricsLog(run_dir, step, [], {}),
            flops_per_token=settings["flops_per_token"],
            peak_flops=settings["peak_flops"],
        ),
        checkpoints=checkpoints,
        loop=loop,
        seed=0,
        run_dir=run_dir,
        state=checkpoints.resume() if settings["resume"] else TrainState(),
    )


def write_model(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file({name: t.clone() for name, t in tensors.items()}, folder / "model.safetensors")


def poisoned(batch: Batch) -> Batch:
    batch.input_ids[0, 0] = VOCAB - 1
    return batch


@pytest.mark.parametrize("spoil", [all_masked, poisoned])
def test_a_bad_batch_is_skipped_counted_and_changes_nothing(tmp_path: Path, spoil) -> None:
    batches = [random_batch(step) for step in range(5)]
    flat = ScheduleConfig(name="constant", warmup_steps=0)
    clean, spoiled = tiny_model(), tiny_model()
    make_trainer(tmp_path / "five", clean, batches, schedule=flat).fit()
    with_bad = [*batches[:3], spoil(random_batch(9)), *batches[3:]]
    trainer = make_trainer(tmp_path / "six", spoiled, with_bad, schedule=flat)
    trainer.fit()
    for (name, a), b in zip(clean.named_parameters(), spoiled.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert (trainer.state.step, trainer.state.skipped) == (6, 1)
    last = json.loads((tmp_path / "six/metrics.jsonl").read_text().splitlines()[-1])
    assert last["skipped"] == 1 and torch.isfinite(torch.tensor(last["loss"]))


def test_endless_non_finite_gradients_end_in_a_clear_error(tmp_path: Path) -> None:
    batches = [poisoned(random_batch(step)) for step in range(6)]
    with pytest.raises(
        UserError, match=r"3 steps in a row .*gradient norm is (inf|nan).*optimizer\.lr"
    ):
        make_trainer(tmp_path, tiny_model(), batches).fit()


def test_reported_loss_does_not_depend_on_accumulation(tmp_path: Path) -> None:
    batch = random_batch(0)
    batch.labels[0, 3:] = IGNORE_INDEX  # rows of unequal weight
    halves = [
        Batch(
            input_ids=batch.input_ids[i : i + 1],
            labels=batch.labels[i : i + 1],
            position_ids=batch.position_ids[i : i + 1],
            document_ids=batch.document_ids[i : i + 1],
            cu_seqlens=batch.cu_seqlens[:2],
        )
        for i in range(2)
    ]
    results = []
    for name, micro in (("one", [batch]), ("halves", halves)):
        model = tiny_model()
        make_trainer(
            tmp_path / name, model, [], batches=lambda _, micro=micro: iter([micro]), max_steps=1
        ).fit()
        line = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        results.append((line["loss"], line["grad_norm"], weights))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-6)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-5)
    torch.testing.assert_close(results[0][2], results[1][2], rtol=0, atol=1e-5)


def test_mfu_is_what_is_reached_of_the_peak(tmp_path: Path) -> None:
    """Four batches of 32 tokens that take 0.2 s each to come: 160 tokens/s at most."""

    def slowly(start: int) -> Iterator[list[Batch]]:
        for step in range(start, 4):
            time.sleep(0.2)
            yield [random_batch(step)]

    trainer = make_trainer(
        tmp_path, tiny_model(), [], batches=slowly, max_steps=4, flops_per_token=3.0,
        peak_flops=600.0, loop=LoopConfig(log_every=4, save_every=10),
    )  # fmt: skip
    started = time.perf_counter()
    assert trainer.fit()
    slowest = 4 * ROWS * SIZE / (time.perf_counter() - started)
    (line,) = (json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert slowest < line["tokens_per_second"] < 160
    assert 3 / 600 * slowest < line["mfu"] < 3 / 600 * 160


def test_no_peak_no_mfu(tmp_path: Path) -> None:
    assert make_trainer(tmp_path, tiny_model(), [random_batch(0)], flops_per_token=3.0).fit()
    assert "mfu" not in (tmp_path / "metrics.jsonl").read_text()

"""What the loop does with batches that it must not train on, and what it reports."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mengya.batch import IGNORE_INDEX, Batch
from mengya.errors import UserError
from mengya.training.run_config import LoopConfig
from mengya.training.schedule import ScheduleConfig
from tests.helpers.tiny_trainer import (
    ROWS,
    SIZE,
    all_masked,
    make_trainer,
    poisoned,
    random_batch,
    tiny_model,
)


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

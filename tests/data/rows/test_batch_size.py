"""The rows of each step, with and without a ramp: places in the data without memory of the past."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from mengya.data.rows.batch_size import BatchRamp, BatchSize
from mengya.data.rows.datasets import PackedRows
from mengya.data.rows.loader import batches
from mengya.errors import UserError
from mengya.stages.pretrain import PretrainConfig
from tests.helpers.random_shards import make_shards

RAMPS = [
    None,
    BatchRamp(start=2, steps=3),
    BatchRamp(start=16, steps=5),
    BatchRamp(start=1, steps=1),
]


@pytest.mark.parametrize("ramp", RAMPS)
def test_first_row_is_the_sum_of_the_steps_before(ramp: BatchRamp | None) -> None:
    size = BatchSize(16, ramp)
    sizes = [size.at(step) for step in range(40)]
    assert [size.first_row(step) for step in range(40)] == [
        0, *itertools.accumulate(sizes[:39])
    ]  # fmt: skip
    for rows in (0, 1, 2, 15, 16, 41.5, 42, 43, 200):
        steps = size.steps_for(rows)
        assert size.first_row(steps) >= rows and (steps == 0 or size.first_row(steps - 1) < rows)


def test_doubles_up_to_its_end() -> None:
    size = BatchSize(16, BatchRamp(start=4, steps=2))
    assert [size.at(step) for step in range(7)] == [4, 4, 8, 8, 16, 16, 16]


def test_the_loader_gives_every_row_once_in_order_for_every_world_size(tmp_path: Path) -> None:
    rows = PackedRows(make_shards(tmp_path), 32, seed=1)
    size = BatchSize(16, BatchRamp(start=4, steps=2))

    def steps(world_size: int, start_step: int) -> list[torch.Tensor]:
        ranks = [
            batches(
                rows, start_step=start_step, batch_size=size, micro_batch_size=2, rank=rank,
                world_size=world_size,
            )
            for rank in range(world_size)
        ]  # fmt: skip
        taken = list(zip(*(itertools.islice(rank, 6 - start_step) for rank in ranks), strict=True))
        return [torch.cat([b.input_ids for rank in step for b in rank]) for step in taken]

    one_rank = steps(1, 0)
    assert [len(step) for step in one_rank] == [4, 4, 8, 8, 16, 16]
    expected = [torch.from_numpy(rows.global_row(i).input_ids) for i in range(56)]
    assert torch.equal(torch.cat(one_rank), torch.stack(expected))
    assert all(map(torch.equal, one_rank, steps(2, 0)))
    assert all(map(torch.equal, one_rank[3:], steps(2, 3)))
    with pytest.raises(UserError, match=r"batch_ramp\.start 4 must be a multiple"):
        batches(rows, start_step=0, batch_size=size, micro_batch_size=8)


@pytest.mark.parametrize("total, start", [(16, 3), (24, 5), (8, 16), (None, 4)])
def test_a_ramp_that_does_not_end_at_the_batch_is_refused(total: int | None, start: int) -> None:
    with pytest.raises(ValidationError, match="batch_ramp"):
        PretrainConfig(
            run_dir=Path("x"), init_from=Path("y"), max_steps=1, micro_batch_size=1, global_batch_size=total,
            data={"train": ["z"]}, batch_ramp=BatchRamp(start=start, steps=2),  # type: ignore[arg-type]
        )  # fmt: skip

"""Saving while training continues: the bytes of that step, one save at a time, ranks together, full disks."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mengya.batch import Batch
from mengya.errors import UserError
from mengya.training.checkpoint.snapshot import HostSnapshot
from mengya.training.checkpoint.store import CheckpointStore
from mengya.training.checkpoint.writer import MAX_FAILURES, CheckpointWriter, Status
from mengya.training.run_config import LoopConfig
from mengya.training.schedule import ScheduleConfig
from mengya.training.state import TrainState
from tests.helpers.tiny_trainer import make_trainer, random_batch, tiny_model, write_model

LOOP = LoopConfig(log_every=1, save_every=4)
FLAT = ScheduleConfig(name="constant", warmup_steps=0)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_slow_write_holds_the_bytes_of_its_own_step(tmp_path: Path) -> None:
    data = [random_batch(step) for step in range(11)]
    trained_on = threading.Event()
    seen: list[int] = []

    def steps(start: int) -> Iterator[list[Batch]]:
        for step in range(start, len(data)):
            if step == 7:
                trained_on.set()  # steps 4 to 6 were trained while checkpoint 4 was being written
            yield [data[step]]

    def slow(folder: Path, tensors: Mapping[str, Tensor]) -> None:
        assert trained_on.wait(timeout=60)
        seen.append(threading.get_ident())
        write_model(folder, tensors)

    make_trainer(
        tmp_path / "on",
        tiny_model(),
        data,
        batches=steps,
        write_model=slow,
        loop=LOOP,
        schedule=FLAT,
    ).fit()
    make_trainer(
        tmp_path / "at once",
        tiny_model(),
        data[:4],
        write_model=write_model,
        loop=LOOP,
        schedule=FLAT,
    ).fit()
    on, at_once = (files(tmp_path / n / "checkpoints/step-000004") for n in ("on", "at once"))
    assert {"model.safetensors", "trainer/optimizer.safetensors", "trainer/state.json"} <= set(on)
    assert on == at_once
    assert threading.get_ident() not in seen
    assert (tmp_path / "on/checkpoints/latest").resolve().name == "step-000011"


def test_an_error_of_the_loop_waits_for_the_write(tmp_path: Path) -> None:
    failing = threading.Event()

    def steps(start: int) -> Iterator[list[Batch]]:
        yield from ([random_batch(step)] for step in range(5))
        failing.set()
        raise KeyboardInterrupt

    def slow(folder: Path, tensors: Mapping[str, Tensor]) -> None:
        assert failing.wait(timeout=60)
        write_model(folder, tensors)

    trainer = make_trainer(
        tmp_path, tiny_model(), [], batches=steps, write_model=slow, loop=LOOP, max_steps=9
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    checkpoints = CheckpointStore(tmp_path, 3)
    checkpoints.recover(pytest.fail)
    assert checkpoints.latest() == checkpoints.path(4)


def test_a_bug_in_the_writer_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    def broken(folder: Path, tensors: Mapping[str, Tensor]) -> None:
        raise ZeroDivisionError

    data = [random_batch(step) for step in range(8)]
    with pytest.raises(ZeroDivisionError):
        make_trainer(tmp_path, tiny_model(), data, write_model=broken).fit()


class TwoRanks:
    """Writers of two ranks that share a folder; their statuses are summed by hand."""

    def __init__(self, folder: Path) -> None:
        self.store = CheckpointStore(folder, 3)
        self.said: list[str] = []
        self.writers = [CheckpointWriter(self.store, rank, 2, self.said.append) for rank in (0, 1)]

    def advance(self) -> None:
        busy, failed = zip(*(writer.status() for writer in self.writers), strict=True)
        for writer in self.writers:
            writer.advance(Status(sum(busy), sum(failed)))

    def finish(self) -> None:
        while not all(writer.idle for writer in self.writers):
            self.advance()


def test_a_checkpoint_of_two_ranks_is_committed_when_both_have_written(tmp_path: Path) -> None:
    ranks = TwoRanks(tmp_path)
    go = threading.Event()

    def late(folder: Path) -> None:
        assert go.wait(timeout=60)
        (folder / "rank1").write_text("1")

    ranks.writers[0].start(TrainState(step=5), lambda folder: write_text(folder / "rank0"))
    ranks.writers[1].start(TrainState(step=5), late)
    for _ in range(3):
        ranks.advance()
    assert ranks.store.latest() is None
    go.set()
    ranks.finish()
    latest = ranks.store.latest()
    assert latest is not None
    assert set(files(latest)) == {"rank0", "rank1", "trainer/state.json", "trainer/sha256.json"}
    assert [writer.saved.step for writer in ranks.writers] == [5, 5]


def test_one_rank_that_cannot_write_makes_all_drop_the_checkpoint(tmp_path: Path) -> None:
    ranks = TwoRanks(tmp_path)

    def full(folder: Path) -> None:
        with Path("/dev/full").open("w") as file:  # the kernel's own "no space left on device"
            file.write("x" * 100_000)

    for attempt in range(1, MAX_FAILURES):
        ranks.writers[0].start(
            TrainState(step=attempt), lambda folder: write_text(folder / "rank0")
        )
        ranks.writers[1].start(TrainState(step=attempt), full)
        ranks.finish()
        assert list(ranks.store.folder.iterdir()) == []
        assert [writer.saved.step for writer in ranks.writers] == [0, 0]
    assert "another process failed" in ranks.said[0] and "No space left" in ranks.said[1]
    for writer, write in zip(ranks.writers, (lambda folder: None, full), strict=True):
        writer.start(TrainState(step=MAX_FAILURES), write)
    for writer in ranks.writers:
        with pytest.raises(UserError, match=r"3 saves in a row .* resume=true"):
            while True:
                writer.advance(Status(busy=0, failed=1))


def write_text(path: Path) -> None:
    path.write_text("0")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB, where mounting is permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, after: str) -> None:
    """Once checkpoint `after` is there, leave only a page or two free."""
    while not (folder / after / "trainer/sha256.json").is_file():
        time.sleep(0.001)
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "ballast").write_bytes(b"x" * max(0, free - 8192))


def test_training_outlives_a_full_disk_and_saves_when_there_is_room(
    small_disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = [random_batch(step) for step in range(14)]

    def steps(start: int) -> Iterator[list[Batch]]:
        for step in range(start, len(data)):
            if step == 5:
                fill(small_disk, "step-000004")
            yield [data[step]]

    def write_or_make_room(folder: Path, tensors: Mapping[str, Tensor]) -> None:
        try:
            write_model(folder, tensors)
        except Exception:
            (small_disk / "ballast").unlink()  # for the save after this one
            raise

    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").symlink_to(small_disk)
    assert make_trainer(
        run, tiny_model(), data, batches=steps, write_model=write_or_make_room, loop=LOOP
    ).fit()
    error = capfd.readouterr().err
    assert "step-000008 could not be written" in error
    complete = [p.name for p in sorted(small_disk.glob("step-*"))]
    assert complete == ["step-000004", "step-000012", "step-000014"]
    CheckpointStore(run, 3).recover(pytest.fail)

    roomy = tmp_path / "roomy"
    make_trainer(roomy, tiny_model(), data, loop=LOOP).fit()
    assert files(roomy / "checkpoints/latest") == files(run / "checkpoints/latest")


def test_a_run_whose_last_checkpoint_does_not_fit_ends_in_a_clear_error(
    small_disk: Path, tmp_path: Path
) -> None:
    data = [random_batch(step) for step in range(6)]

    def steps(start: int) -> Iterator[list[Batch]]:
        for step in range(start, len(data)):
            if step == 5:
                fill(small_disk, "step-000004")
            yield [data[step]]

    (tmp_path / "checkpoints").symlink_to(small_disk)
    trainer = make_trainer(tmp_path, tiny_model(), data, batches=steps, loop=LOOP)
    with pytest.raises(UserError, match=r"step-000006 .*No space left.*complete.*resume=true"):
        trainer.fit()
    CheckpointStore(tmp_path, 3).recover(pytest.fail)
    assert (small_disk / "latest").resolve().name == "step-000004"
    assert not list(small_disk.glob(".*"))


def test_a_model_is_copied_once_under_two_names() -> None:
    weight = torch.arange(6.0).view(2, 3)
    copy = HostSnapshot(torch.device("cpu")).copy(
        {"model": {"a": weight, "tied": weight, "transposed": weight.T}, "master": {"a": weight}}
    )
    taken = copy["model"]["a"]
    assert taken is copy["model"]["tied"] is copy["master"]["a"]
    weight.zero_()
    assert taken.sum() == 15 and copy["model"]["transposed"].is_contiguous()
    assert torch.equal(copy["model"]["transposed"], taken.T)


@pytest.mark.gpu
def test_on_a_gpu_the_copy_is_of_its_step_though_updates_follow_at_once() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    weights = {str(i): torch.full((1 << 24,), float(i), device=device) for i in range(16)}  # 1 GiB
    bf16 = torch.arange(512, device=device, dtype=torch.bfloat16).view(16, 32).T  # not contiguous
    snapshot = HostSnapshot(device)
    for save in range(3):  # the memory is used again
        copy = snapshot.copy({"model": {**weights, "bf16": bf16}})
        snapshot.before_update()
        for weight in weights.values():
            weight.add_(100.0)
        snapshot.wait()
        assert all(copy["model"][name].is_pinned() for name in weights)
        for i in range(16):
            expected = float(i + 100 * save)
            assert bool((copy["model"][str(i)] == expected).all()), (save, i)
        assert torch.equal(copy["model"]["bf16"], bf16.cpu())

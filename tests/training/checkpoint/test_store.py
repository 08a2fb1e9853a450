"""Checkpoint folders: rotated, sealed, and recovered after damage and kills."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

from mengya.errors import UserError
from mengya.training.checkpoint.store import CheckpointStore
from mengya.training.checkpoint.tensor_files import Part, read_tensors, write_part
from mengya.training.state import TrainState


def write(checkpoints: CheckpointStore, step: int, **more: object) -> Path:
    staging = checkpoints.staging(step)
    staging.mkdir(parents=True)
    write_part(staging, "optimizer", Part({"w": torch.full((9,), float(step))}))
    return checkpoints.commit(TrainState(step=step, **more))  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_rotation_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path, keep_last=2)
    for step in range(1, 7):
        write(checkpoints, step, best_step=2 if step >= 2 else 1, best_loss=1.0)
    kept = ["best", "latest", "step-000002", "step-000005", "step-000006"]
    assert names(checkpoints.folder) == kept
    assert (checkpoints.folder / "latest").resolve().name == "step-000006"
    assert (checkpoints.folder / "best").resolve().name == "step-000002"


def test_steps_are_numbers_not_words(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path, keep_last=1)
    write(checkpoints, 999_999)
    write(checkpoints, 1_000_000)
    assert names(checkpoints.folder) == ["latest", "step-1000000"]


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def altered(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    "name, damage, rule",
    [
        ("optimizer.safetensors", truncated, r"has \d+ bytes, \d+ were written"),
        ("optimizer.safetensors", altered, "was altered: its SHA-256"),
        ("optimizer.safetensors", Path.unlink, "is missing"),
        ("state.json", altered, "was altered"),
        ("sha256.json", Path.unlink, "is missing, so the folder cannot be checked"),
        ("sha256.json", half, "cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
    tmp_path: Path, name: str, damage, rule: str
) -> None:
    checkpoints = CheckpointStore(tmp_path, keep_last=3)
    for step in (1, 2):
        write(checkpoints, step, best_step=step, best_loss=1.0)
    file = checkpoints.path(2) / "trainer" / name
    damage(file)
    said: list[str] = []
    checkpoints.recover(said.append)
    assert len(said) == 1 and re.search(f"trainer/{name} {rule}", said[0])
    assert names(checkpoints.folder) == ["best", "damaged-step-000002", "latest", "step-000001"]
    for link in ("latest", "best"):
        assert (checkpoints.folder / link).resolve().name == "step-000001"
    assert checkpoints.read_state(checkpoints.path(1)).step == 1


def test_without_any_good_checkpoint_the_message_names_all_and_the_remedy(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path, keep_last=3)
    for step in (1, 2):
        altered(write(checkpoints, step) / "trainer/optimizer.safetensors")
    with pytest.raises(UserError, match=r"(?s)step-000002: .*step-000001: .*another run_dir"):
        checkpoints.recover(lambda text: None)


def test_what_a_kill_left_is_cleaned_and_a_replaced_folder_comes_back(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path, keep_last=3)
    for step in (1, 2):
        write(checkpoints, step)
    folder = checkpoints.folder
    (checkpoints.staging(3) / "trainer").mkdir(parents=True)
    (checkpoints.staging(3) / "model.safetensors").write_bytes(b"half")
    (folder / ".latest.77.tmp").symlink_to("step-000001")
    checkpoints.path(2).rename(folder / ".step-000002.old")  # killed between two renames
    checkpoints.recover(lambda text: None)
    assert names(folder) == ["latest", "step-000001", "step-000002"]
    assert (folder / "latest").resolve().name == "step-000002"


def test_dropping_an_undone_future_moves_the_links_back(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path, keep_last=3)
    write(checkpoints, 1, best_step=1, best_loss=2.0)
    write(checkpoints, 2, best_step=2, best_loss=1.0)
    checkpoints.drop_after(1)
    assert names(checkpoints.folder) == ["best", "latest", "step-000001"]
    assert (checkpoints.folder / "best").resolve().name == "step-000001"


def test_damaged_tensors_are_named_with_the_remedy(tmp_path: Path) -> None:
    path = write(CheckpointStore(tmp_path, keep_last=2), 1)
    truncated(path / "trainer/optimizer.safetensors")
    with pytest.raises(
        UserError, match=r"optimizer\.safetensors is damaged .* remove .*step-000001"
    ):
        read_tensors(path, "optimizer")

"""`latest` and `best` where links became folders, text files or nothing, or cannot be made at all."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mengya.runtime.checkpoint_names import follow
from mengya.training.checkpoint.store import CheckpointStore
from mengya.training.state import TrainState
from tests.helpers import no_symlinks

COMMIT = """
import sys
from pathlib import Path
from tests.helpers.no_symlinks import forbid_symlinks
forbid_symlinks()
from mengya.training.checkpoint.store import CheckpointStore
from mengya.training.state import TrainState
store = CheckpointStore(Path(sys.argv[1]), keep_last=1)
for step in (1, 2, 3):
    store.staging(step).mkdir(parents=True)
    store.commit(TrainState(step=step, best_step=1, best_loss=1.0))
"""


def saved(run: Path) -> CheckpointStore:
    store = CheckpointStore(run, keep_last=2)
    for step in (1, 2):
        store.staging(step).mkdir(parents=True)
        (store.staging(step) / "config.json").write_text(f'{{"step": {step}}}')
        store.commit(TrainState(step=step, best_step=1, best_loss=1.0))
    return store


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def resume(run: Path) -> None:
    """As a run does that is resumed and then saves once more."""
    store = CheckpointStore(run, keep_last=2)
    store.recover(lambda text: None)
    assert store.latest() == store.path(2)
    store.staging(3).mkdir()
    store.commit(TrainState(step=3, best_step=1, best_loss=1.0))
    assert names(store.folder) == ["best", "latest", "step-000001", "step-000002", "step-000003"]
    assert follow(store.folder / "latest").resolve().name == "step-000003"
    assert follow(store.folder / "best").resolve().name == "step-000001"


def test_a_copy_that_followed_the_links_resumes_and_links_again(tmp_path: Path) -> None:
    saved(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")  # as cp -rL, scp -r and zip do
    assert not (tmp_path / "copy/checkpoints/latest").is_symlink()
    resume(tmp_path / "copy")
    assert (tmp_path / "copy/checkpoints/latest").is_symlink()


def test_a_copy_of_the_links_alone_gets_its_steps_back(tmp_path: Path) -> None:
    store = saved(tmp_path / "run")
    copy = tmp_path / "copy/checkpoints"
    for name in ("latest", "best"):
        shutil.copytree(store.folder / name, copy / name)
    assert CheckpointStore(tmp_path / "copy", keep_last=2).latest() is not None
    resume(tmp_path / "copy")


def test_files_added_to_a_copied_link_are_kept(tmp_path: Path) -> None:
    store = saved(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    (tmp_path / "copy/checkpoints/latest/notes.txt").write_text("mine")
    CheckpointStore(tmp_path / "copy", keep_last=2).recover(lambda text: None)
    assert (tmp_path / "copy/checkpoints/left-latest/notes.txt").read_text() == "mine"
    other = tmp_path / "copy/checkpoints"
    (other / "latest").unlink()
    shutil.copytree(store.path(1), other / "latest")
    (other / "latest/trainer/sha256.json").write_text("{}")  # of another run
    CheckpointStore(tmp_path / "copy", keep_last=2).recover(lambda text: None)
    assert (other / "left-latest-2/config.json").is_file()


def test_text_files_for_links_and_lost_links_are_followed(tmp_path: Path) -> None:
    store = saved(tmp_path / "run")
    for name, step in (("latest", 2), ("best", 1)):
        link = store.folder / name
        link.unlink()
        assert follow(link) == store.path(step)
        link.write_text(store.path(step).name)  # what git and zip make of a link
        assert follow(link) == store.path(step)
    resume(tmp_path / "run")
    strange = store.folder / "latest"
    strange.unlink()
    strange.write_text("../../outside")
    assert follow(strange) == store.path(3)


@pytest.mark.skipif(not no_symlinks.SUPPORTED, reason="needs Linux's seccomp")
def test_a_file_system_without_links(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", COMMIT, tmp_path], check=True)
    folder = tmp_path / "checkpoints"
    assert names(folder) == ["best", "latest", "step-000001", "step-000003"]
    assert (folder / "latest").read_text() == "step-000003\n" and not (folder / "best").is_symlink()
    assert follow(folder / "best") == folder / "step-000001"
    CheckpointStore(tmp_path, keep_last=1).recover(lambda text: None)

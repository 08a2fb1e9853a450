"""Checkpoints on disk: written atomically, sealed, rotated, the best kept, resumed exactly.

    RUN/checkpoints/step-002000/         a standard model folder (or adapter folder), and
                    step-002000/trainer/ state.json, optimizer.json, optimizer.safetensors,
                                         master.safetensors, sha256.json
    RUN/checkpoints/latest -> step-002000,  best -> step-001500 (runtime/checkpoint_names.py)
                    .step-002200.mengya-partial/  one that is being written
                    left-step-001000/    files that somebody put into a checkpoint that was rotated away
                    damaged-step-001900/ one whose files are not what was written, set aside

Knows folders; nothing of models, threads or ranks (writer.py has those).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from mengya.errors import UserError
from mengya.runtime.checkpoint_names import LINKS, follow, step_folders, step_of
from mengya.runtime.files import point_link, sync_tree, write_text
from mengya.runtime.output_folder import added_later, remove_files, replace_folder
from mengya.runtime.output_path import free_name
from mengya.training.checkpoint.integrity import RECORD, find_damage, seal, sealed_files
from mengya.training.state import TrainState
from mengya.version import __version__, check_format

FORMAT = 1  # of trainer/, raised when an earlier mengya could not resume from it


class CheckpointStore:
    """The checkpoints folder of one run. Only one process changes it, except for files in `staging`."""

    def __init__(self, run_dir: Path, keep_last: int) -> None:
        self.folder = run_dir / "checkpoints"
        self.keep_last = keep_last

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def latest(self) -> Path | None:
        """The newest checkpoint, or None. Its files are not checked; `recover` does that.

        Of a folder that only the links were copied from, one of the copies; `recover` renames it.
        """
        paths = step_folders(self.folder) or list(self._copied_links())
        return paths[-1] if paths else None

    def recover(self, say: Callable[[str], None]) -> None:
        """Make `latest` a checkpoint whose files are what was written; called before a run resumes.

        What a killed process left unfinished is removed; damaged checkpoints that are newer are set
        aside with a message, and the links moved.

        Raises:
            UserError: there are checkpoints, and all of them are damaged.
        """
        self._clean()
        self._adopt_copied_links()
        damaged = []
        for path in reversed(step_folders(self.folder)):
            wrong = find_damage(path)
            if wrong is None:
                return self._relink()
            aside = free_name(path.with_name(f"damaged-{path.name}"))
            path.rename(aside)
            damaged.append(f"{path.name}: {wrong}")
            say(f"checkpoint {path} is damaged ({wrong}); it is set aside as {aside.name}")
        if damaged:
            raise UserError(
                f"{self.folder} has no undamaged checkpoint:\n  - "
                + "\n  - ".join(damaged)
                + "\nput an undamaged copy in its place under the name step-..., or start again with "
                "another run_dir"
            )

    def staging(self, step: int) -> Path:
        """The folder in which checkpoint `step` is being written; every rank may add files."""
        return self.folder / f".{self.path(step).name}.mengya-partial"

    def commit(self, state: TrainState) -> Path:
        """Seal the staging folder of `state.step`, rename it, move the links, remove what is too old."""
        staging, path = self.staging(state.step), self.path(state.step)
        (staging / "trainer").mkdir(exist_ok=True)
        write_text(staging / "trainer/state.json", _to_json(state))
        seal(staging)
        sync_tree(staging)
        replace_folder(staging, path, self._discard)
        point_link(self.folder / "latest", path.name)
        if state.best_step == state.step:
            point_link(self.folder / "best", path.name)
        kept = {p.name for p in step_folders(self.folder)[-self.keep_last :]}
        kept |= {follow(self.folder / "best").resolve().name}
        self._remove(p for p in step_folders(self.folder) if p.name not in kept)
        return path

    def has_until(self, step: int) -> bool:
        """Whether there is a checkpoint of at most `step` steps."""
        return any(step_of(p) <= step for p in step_folders(self.folder))

    def drop_after(self, step: int) -> None:
        """Remove checkpoints after `step`: of a future that is to be undone."""
        self._remove(p for p in step_folders(self.folder) if step_of(p) > step)
        self._relink()

    def read_state(self, checkpoint: Path) -> TrainState:
        """Its `TrainState`; a best checkpoint that is no longer there is forgotten."""
        path = checkpoint / "trainer/state.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            check_format(path, values.pop("format", 1), FORMAT, values.pop("mengya_version", None))
            state = TrainState(**values)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} cannot be read: {error}; remove {checkpoint} to use an older one"
            ) from error
        if state.best_step is not None and not self.path(state.best_step).is_dir():
            state.best_step = state.best_loss = None
        return state

    def _clean(self) -> None:
        """Remove what a killed process left half-written, half-removed or half-replaced."""
        for stray in list(self.folder.glob(".*")):
            if named := re.fullmatch(_OLD, stray.name):
                path = self.folder / named[1]
                self._discard(stray) if path.exists() else stray.rename(path)
            elif re.fullmatch(_GONE, stray.name):
                self._discard(stray)
            elif re.fullmatch(_DRAFT, stray.name):
                shutil.rmtree(
                    stray
                ) if stray.is_dir() and not stray.is_symlink() else stray.unlink()

    def _copied_links(self) -> Iterator[Path]:
        """`latest` and `best` where they are folders: cp -L, scp and zip copy what a link names."""
        for path in (self.folder / name for name in LINKS):
            if path.is_dir() and not path.is_symlink():
                yield path

    def _adopt_copied_links(self) -> None:
        """Remove such a copy of a checkpoint that is here too; else give it the name of its step.

        Raises:
            UserError: its state cannot be read.
        """
        for copy in self._copied_links():
            path = self.path(self.read_state(copy).step)
            if not path.exists():
                copy.rename(path)
            elif (copy / RECORD).is_file() and _same_bytes(copy / RECORD, path / RECORD):
                self._discard(copy)
            else:
                copy.rename(free_name(self.folder / f"left-{copy.name}"))

    def _relink(self) -> None:
        """Point `latest` at the newest checkpoint and `best` at that of the newest's state."""
        (self.folder / "best").unlink(missing_ok=True)
        newest = self.latest()
        if newest is None:
            (self.folder / "latest").unlink(missing_ok=True)
            return
        point_link(self.folder / "latest", newest.name)
        best = self.read_state(newest).best_step
        if best is not None:
            point_link(self.folder / "best", self.path(best).name)

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in list(paths):
            gone = path.with_name(
                f".{path.name}.mengya-gone"
            )  # never half a folder under a good name
            path.rename(gone)
            self._discard(gone)

    def _discard(self, folder: Path) -> None:
        """Remove what the run wrote of a checkpoint; files that somebody added are kept as left-step-..."""
        with suppress(OSError):  # what cannot be removed now is tried again by `_clean`
            if not remove_files(folder, [*sealed_files(folder), *added_later(folder)]):
                name = folder.name.strip(".").partition(".")[0]
                folder.rename(free_name(self.folder / f"left-{name}"))


# What a kill leaves, each with its earlier name: a checkpoint replaced or being removed, drafts, links.
_OLD = r"\.(step-\d+)\.(?:mengya-)?old"
_GONE = r"\.step-\d+\.(?:mengya-gone|gone\.tmp)"
_DRAFT = r"\.step-\d+\.(?:mengya-partial|tmp)|\.(?:latest|best)\.\d+\.tmp"


def _to_json(state: TrainState) -> str:
    values = {"format": FORMAT, "mengya_version": __version__, **asdict(state)}
    return json.dumps(values, indent=2) + "\n"


def _same_bytes(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()

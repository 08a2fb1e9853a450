"""Checkpoints on disk: written whole or not at all, sealed, rotated, the best kept, resumed exactly.

    RUN/checkpoints/step-002000/         a standard model folder (or adapter folder), and
                    step-002000/trainer/ state.json, optimizer.safetensors, master.safetensors, sha256.json
    RUN/checkpoints/latest -> step-002000,  best -> step-001500
                    .step-002200.tmp/    one that is being written
                    damaged-step-001900/ one whose files are not what was written, set aside

Knows folders, and tensors by name; nothing of models, threads or ranks (saver.py has those).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mengya.errors import UserError
from mengya.runtime.files import point_link, replace_directory, sync_tree, write_text
from mengya.training.checkpoint.integrity import problem, seal
from mengya.version import __version__, check_format

FORMAT = 1  # of trainer/, raised when an earlier mengya could not resume from it


@dataclass
class TrainState:
    """All that a run has to remember besides tensors; everything else is a function of `step`.

    Attributes:
        step: optimizer steps done, skipped ones included: the position in data and schedule.
        tokens: tokens trained on so far, padding not counted.
        skipped: steps that were not applied (no labels, or non-finite gradients).
        best_loss, best_step: the lowest validation loss of a checkpoint and where it was.
        grad_scaler: state of the fp16 loss scaler; empty without one.
        losses, last_good, skipped_row, spike_row: what loss_watch.py remembers of the steps before.
        quarantined: steps whose batches are left out; rewinds: how often the run went back.
    """

    step: int = 0
    tokens: int = 0
    skipped: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    grad_scaler: dict[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    last_good: int | None = None
    skipped_row: list[int] = field(default_factory=list)
    spike_row: list[int] = field(default_factory=list)
    quarantined: list[int] = field(default_factory=list)
    rewinds: int = 0


class Checkpoints:
    """The checkpoints folder of one run. Only one process changes it, but for files below `draft`."""

    def __init__(self, run_dir: Path, keep_last: int) -> None:
        self.folder = run_dir / "checkpoints"
        self.keep_last = keep_last

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def latest(self) -> Path | None:
        """The newest checkpoint, or None. Its files are not checked; `recover` does that."""
        paths = self._all()
        return paths[-1] if paths else None

    def recover(self, say: Callable[[str], None]) -> None:
        """Make `latest` a checkpoint whose files are what was written; called before a run goes on.

        What a killed process left half-done is removed; damaged checkpoints that are newer are set
        aside with a message, and the links moved.

        Raises:
            UserError: there are checkpoints, and all of them are damaged.
        """
        self._clean()
        damaged = []
        for path in reversed(self._all()):
            wrong = problem(path)
            if wrong is None:
                return self._relink()
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            damaged.append(f"{path.name}: {wrong}")
            say(f"checkpoint {path} is damaged ({wrong}); it is set aside as {aside.name}")
        if damaged:
            raise UserError(
                f"{self.folder} holds no checkpoint that is whole:\n  - "
                + "\n  - ".join(damaged)
                + "\nput an undamaged copy in its place under the name step-..., or start again with "
                "another run_dir"
            )

    def draft(self, step: int) -> Path:
        """The folder in which checkpoint `step` is being written; every rank may add files."""
        return self.folder / f".{self.path(step).name}.tmp"

    def publish(self, state: TrainState) -> Path:
        """Seal the draft of `state.step`, put it in place, move the links, remove what is too old."""
        draft, path = self.draft(state.step), self.path(state.step)
        (draft / "trainer").mkdir(exist_ok=True)
        write_text(draft / "trainer/state.json", _to_json(state))
        seal(draft)
        sync_tree(draft)
        replace_directory(draft, path)
        point_link(self.folder / "latest", path.name)
        if state.best_step == state.step:
            point_link(self.folder / "best", path.name)
        best = self.folder / "best"
        kept = {p.name for p in self._all()[-self.keep_last :]}
        kept |= {best.readlink().name} if best.is_symlink() else set()
        self._remove(p for p in self._all() if p.name not in kept)
        return path

    def has_until(self, step: int) -> bool:
        """Whether there is a checkpoint of at most `step` steps."""
        return any(_step(p) <= step for p in self._all())

    def drop_after(self, step: int) -> None:
        """Remove checkpoints beyond `step`: they are of a future that is to be undone."""
        self._remove(p for p in self._all() if _step(p) > step)
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
        for old in self.folder.glob(".step-*.old"):
            path = self.folder / old.name.removeprefix(".").removesuffix(".old")
            if path.exists():
                shutil.rmtree(old)
            else:
                old.rename(path)
        for stray in self.folder.glob(".*.tmp"):
            shutil.rmtree(stray) if stray.is_dir() and not stray.is_symlink() else stray.unlink()

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
            gone = path.with_name(f".{path.name}.gone.tmp")  # never half a folder under a good name
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _all(self) -> list[Path]:
        found = (p for p in self.folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name))
        return sorted(found, key=_step)


def _to_json(state: TrainState) -> str:
    values = {"format": FORMAT, "mengya_version": __version__, **asdict(state)}
    return json.dumps(values, indent=2) + "\n"


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))

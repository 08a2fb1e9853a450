"""Checkpoints on disk: written whole or not at all, rotated, the best kept, resumed exactly.

    RUN/checkpoints/step-002000/         a standard model folder (or adapter folder), and
                    step-002000/trainer/ state.json, optimizer.safetensors, master.safetensors
    RUN/checkpoints/latest -> step-002000,  best -> step-001500

Takes a function that writes the model's folder; knows tensors by name and nothing of models.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mengya.config import UserError
from mengya.runtime import point_link, whole_directory, write_text


@dataclass
class TrainState:
    """All that a run has to remember besides tensors; everything else is a function of `step`.

    Attributes:
        step: optimizer steps done, skipped ones included: the position in data and schedule.
        tokens: tokens trained on so far, padding not counted.
        skipped: steps that were not applied (no labels, or non-finite gradients).
        best_loss, best_step: the lowest validation loss of a checkpoint and where it was.
        grad_scaler: state of the fp16 loss scaler; empty without one.
    """

    step: int = 0
    tokens: int = 0
    skipped: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    grad_scaler: dict[str, float] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints folder of one run."""

    def __init__(self, run_dir: Path, keep_last: int) -> None:
        self.folder = run_dir / "checkpoints"
        self.keep_last = keep_last

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None."""
        steps = self._steps()
        return steps[-1] if steps else None

    def save(
        self,
        state: TrainState,
        write_model: Callable[[Path], None],
        optimizer: Mapping[str, Tensor],
        master: Mapping[str, Tensor] | None,
    ) -> Path:
        """Write one checkpoint, move `latest` and `best` to it, remove those beyond `keep_last`.

        Args:
            write_model: writes the model's folder into the directory it is given.
            master: fp32 weights, where the folder holds them in a shorter dtype.

        Raises:
            UserError: when the disk refuses; the previous checkpoint is untouched.
        """
        path = self.folder / f"step-{state.step:06d}"
        try:
            with whole_directory(path) as temporary:
                write_model(temporary)
                trainer = temporary / "trainer"
                trainer.mkdir()
                save_file(
                    {k: v.contiguous() for k, v in optimizer.items()},
                    trainer / "optimizer.safetensors",
                )
                if master is not None:
                    save_file(
                        {k: v.contiguous() for k, v in master.items()},
                        trainer / "master.safetensors",
                    )
                write_text(trainer / "state.json", json.dumps(asdict(state), indent=2) + "\n")
            point_link(self.folder / "latest", path.name)
            if state.best_step == state.step:
                point_link(self.folder / "best", path.name)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"checkpoint {path} could not be written: {error}. Earlier checkpoints are whole; "
                "free some space and continue with resume=true"
            ) from error
        self._rotate()
        return path

    def _rotate(self) -> None:
        best = self.folder / "best"
        kept = {p.name for p in self._steps()[-self.keep_last :]}
        kept |= {best.readlink().name} if best.is_symlink() else set()
        for path in self._steps():
            if path.name not in kept:
                shutil.rmtree(path)

    def _steps(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("step-*") if (p / "trainer/state.json").is_file())


def read_state(checkpoint: Path) -> TrainState:
    """The `TrainState` of a checkpoint."""
    path = checkpoint / "trainer/state.json"
    try:
        return TrainState(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read: {error}; remove {checkpoint} to use an older one"
        ) from error


def read_tensors(checkpoint: Path, name: str) -> dict[str, Tensor] | None:
    """`trainer/NAME.safetensors` of a checkpoint, or None when it has none."""
    path = checkpoint / "trainer" / f"{name}.safetensors"
    if not path.is_file():
        return None
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} is damaged ({error}); remove {checkpoint} to use an older one"
        ) from error

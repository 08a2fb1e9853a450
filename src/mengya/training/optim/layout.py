"""Which optimizer updates each parameter and what state it keeps: compared before a run resumes.

    trainer/optimizer.json     {"name": "muon", "kinds": {"model.norm.weight": "adamw", ...}}

In a checkpoint without this file (of an earlier version) the names of the state tensors say the same.
Names, shapes and dtypes only; values are loaded elsewhere (build.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mengya.errors import UserError
from mengya.runtime.files import write_text
from mengya.training.checkpoint.tensor_files import Stored, stored_tensors
from mengya.training.optim.config import OptimizerConfig
from mengya.training.optim.matrix_optimizer import State
from mengya.training.optim.registry import MATRIX_OPTIMIZERS

FILE = Path("trainer/optimizer.json")

_KINDS = {frozenset({"step", "exp_avg", "exp_avg_sq"}): "adamw"} | {
    optimizer.state_names: name for name, optimizer in MATRIX_OPTIMIZERS.items()
}


@dataclass(frozen=True)
class OptimizerLayout:
    """The optimizers of a run, or of a checkpoint.

    Attributes:
        name: optimizer.name.
        kinds: parameter -> the optimizer that updates it, "adamw" or `name`.
        states: parameter -> its state tensors.
    """

    name: str
    kinds: Mapping[str, str]
    states: Mapping[str, State]

    def states_of(self, kind: str) -> list[State]:
        """The states of the parameters that this optimizer updates."""
        return [self.states[name] for name, found in self.kinds.items() if found == kind]

    def write(self, checkpoint: Path) -> None:
        """Write trainer/optimizer.json; names, shapes and dtypes of tensors are in their own file."""
        values = {"name": self.name, "kinds": dict(self.kinds)}
        write_text(checkpoint / FILE, json.dumps(values, indent=1) + "\n")

    def check(self, checkpoint: Path, new_run: str) -> None:
        """Refuse a checkpoint whose optimizer state is not what this run's optimizers keep.

        Args:
            new_run: what to type to start a new run from the weights of the checkpoint.

        Raises:
            UserError: naming the first difference, or the state's files are damaged.
        """
        difference = _difference(read_layout(checkpoint), self)
        if difference is not None:
            raise UserError(
                f"{checkpoint} {difference}, or start a new run from its weights: {new_run}"
            )


def run_layout(
    optimizers: Sequence[Optimizer], model: nn.Module, config: OptimizerConfig
) -> OptimizerLayout:
    """What the optimizers that `build_optimizers` made will keep.

    Call it before an engine flattens the parameters (`Strategy.wrap`); sharded ones count in full.
    """
    names = {p: n for n, p in model.named_parameters()}
    kinds: dict[str, str] = {}
    states: dict[str, State] = {}
    for optimizer, kind in zip(optimizers, ("adamw", config.name), strict=False):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name, shape = names[parameter], tuple(parameter.shape)
                kinds[name] = kind
                states[name] = {
                    key: Stored(torch.Size(of), parameter.dtype)
                    for key, of in _state_shapes(kind, shape, group).items()
                }
    return OptimizerLayout(config.name, kinds, states)


def read_layout(checkpoint: Path) -> OptimizerLayout:
    """What a checkpoint holds.

    Raises:
        UserError: a file cannot be read.
    """
    states: dict[str, dict[str, Stored]] = {}
    for full, stored in stored_tensors(checkpoint, "optimizer").items():
        name, _, key = full.rpartition(".")
        states.setdefault(name, {})[key] = stored
    path = checkpoint / FILE
    if path.is_file():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return OptimizerLayout(str(values["name"]), dict(values["kinds"]), states)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path} cannot be read: {error!r}; remove {checkpoint} to use an older one"
            ) from error
    kinds = {name: _KINDS.get(frozenset(of), "unknown") for name, of in states.items()}
    name = next((kind for kind in kinds.values() if kind != "adamw"), "adamw")
    return OptimizerLayout(name, kinds, states)


def _state_shapes(
    kind: str, shape: tuple[int, ...], group: Mapping[str, Any]
) -> Mapping[str, tuple[int, ...]]:
    if kind == "adamw":
        return {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
    return MATRIX_OPTIMIZERS[kind].state_shapes(shape, group)


def _difference(theirs: OptimizerLayout, ours: OptimizerLayout) -> str | None:
    """The first difference and the setting that undoes it, of a checkpoint and this run."""
    version = "resume with the version of mengya that wrote it"
    if theirs.name != ours.name:
        known = ("adamw", *MATRIX_OPTIMIZERS)
        undo = f"write optimizer.name={theirs.name} to resume it"
        return (
            f"was trained with optimizer.name={theirs.name}, this run says {ours.name}; "
            f"{undo if theirs.name in known else version}"
        )
    own = "resume with the model, init_from and lora of the run's config.yaml"
    for name in [*ours.states, *theirs.states]:
        if name not in theirs.states:
            return f"has no optimizer state of {name}, which this run trains; {own}"
        if name not in ours.states:
            return f"has optimizer state of {name}, which this run does not train; {own}"
    for name, kind in ours.kinds.items():
        if theirs.kinds.get(name) != kind:
            was = theirs.kinds.get(name)
            return f"has {name} updated by {was}, in this run by {kind}; {version}"
        if theirs.states[name].keys() != ours.states[name].keys():
            has, wants = (", ".join(sorted(of.states[name])) for of in (theirs, ours))
            return f"has the state {has} of {name}, {kind} keeps {wants}; {version}"
    for name, kind in ours.kinds.items():
        has, wants = (_parameter_shape(kind, of.states[name]) for of in (theirs, ours))
        if has != wants:
            return f"has {name} in the shape {has}, this run in {wants}; {own}"
    if (optimizer := MATRIX_OPTIMIZERS.get(ours.name)) is not None:
        changed = optimizer.changed_setting(*(of.states_of(ours.name) for of in (theirs, ours)))
        if changed is not None:
            return changed
    for name, state in ours.states.items():
        for key, wanted in state.items():
            found = theirs.states[name][key]
            if found.shape != wanted.shape:
                has, wants = list(found.shape), list(wanted.shape)
                return f"has {name}.{key} in the shape {has}, this run in {wants}; {version}"
            # Engines choose what they count steps in.
            if key != "step" and found.dtype != wanted.dtype:
                return f"has {name}.{key} in {found.dtype}, this run in {wanted.dtype}; {version}"
    return None


def _parameter_shape(kind: str, state: State) -> list[int]:
    """Of a parameter with this state."""
    if kind in MATRIX_OPTIMIZERS:
        return MATRIX_OPTIMIZERS[kind].parameter_shape(state)
    return list(state["exp_avg"].shape)

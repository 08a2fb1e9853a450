"""The stages of a model's life: which checkpoints a path means, and which of them came from which.

Takes run folders, checkpoints, adapters, quantized folders, or a parent of such; gives them in the order in
which one was made from the other, as far as config.yaml, .mengya-source.json, adapter_config.json and
training_data.json tell. Opens no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mengya.data.training_record import read_training_record
from mengya.errors import UserError
from mengya.models.hf.checkpoint import weights_sha256
from mengya.models.hf.open_checkpoint import ADAPTER, find_checkpoint
from mengya.runtime.made_from import read_source
from mengya.runtime.output_folder import MARKER
from mengya.runtime.yaml_values import read_object

_VERBS = {"merge": "merged", "extend": "extended", "quantize": "quantized"}
_MADE = ("quantized", "merged", "extended")
_DEPTH = 16  # longest chain of stages that is followed
_NOT_MODELS = ("export", "tokenizer", "prepare")


@dataclass(frozen=True)
class Place:
    """A stage on disk.

    Attributes:
        folder: its checkpoint, links resolved.
        run: its run folder, which has config.yaml and metrics.jsonl; None without.
        name: short, and unique among the stages.
        kind: pretrain, sft, dpo, rl, lora, quantized, merged, extended; the verb of another run; else model.
        before: the index of the stage that it was made from, else of the one above it; None of the first.
        before_known: whether files say so.
    """

    folder: Path
    run: Path | None
    name: str
    kind: str
    before: int | None = None
    before_known: bool = False


def find_life(paths: Sequence[Path]) -> list[Place]:
    """The stages that `paths` mean: in the order typed, those inside a parent folder by their lineage.

    Raises:
        UserError: a path is no checkpoint and none is inside, or one is named twice.
    """
    folders: list[Path] = []
    for path in paths:
        inside = _checkpoints(path)
        if again := [folder for folder in inside if folder in folders]:
            if len(paths) > 1 and len(inside) == 1:
                raise UserError(f"{path} is {again[0]}, which is a stage already: name it once")
            inside = [folder for folder in inside if folder not in folders]
        folders += inside
    names = _names(folders)
    places = [
        Place(folder, run_of(folder), name, kind_of(folder))
        for folder, name in zip(folders, names, strict=True)
    ]
    return _without_circles(
        [_with_before(place, number, places) for number, place in enumerate(places)]
    )


def run_of(folder: Path) -> Path | None:
    """The run folder of a checkpoint."""
    run = folder.parent.parent
    is_run = folder.parent.name == "checkpoints" and (run / "config.yaml").is_file()
    return run if is_run else None


def kind_of(folder: Path) -> str:
    """What made a checkpoint."""
    if (folder / "quantization.json").is_file():
        return "quantized"
    run = run_of(folder)
    verb = _verb(run) if run else None
    own = _verb(folder)
    if own in _VERBS:
        return _VERBS[own]
    if (folder / ADAPTER).is_file():
        return "lora"
    if verb is None:
        record = read_training_record(folder)
        verb = record[-1].run if record else None
    return verb or "model"


def parent_of(folder: Path) -> Path | None:
    """The checkpoint that one was made from; None where no file says so, or it is gone."""
    if (source := read_source(folder)) is not None:
        return _found(source)
    if (run := run_of(folder)) is not None and (
        start := read_object(run / "config.yaml").get("init_from")
    ):
        return _found(Path(str(start)))
    base = read_object(folder / ADAPTER).get("base_model_name_or_path")
    return _found(Path(base)) if isinstance(base, str) else None


def _checkpoints(path: Path) -> list[Path]:
    """What `path` means, or the checkpoints in the folder, by their lineage."""
    try:
        return [find_checkpoint(path).resolve()]
    except UserError:
        if not path.is_dir():
            raise
    found: dict[Path, None] = {}
    for child in sorted(path.iterdir()):
        if not child.is_dir() or child.name.startswith(".") or _verb(child) in _NOT_MODELS:
            continue
        try:
            folder = find_checkpoint(child).resolve()
        except UserError:  # shards, a tokenizer: no model
            continue
        if any(folder.glob("*.safetensors")):
            found[folder] = None
    if not found:
        raise UserError(
            f"{path} is no checkpoint, and none of the folders in it is a run or a checkpoint: name a run "
            "folder, a checkpoint, an adapter or a quantized folder"
        )
    return sorted(found, key=_place_in_life)


def _place_in_life(folder: Path) -> tuple[int, bool, int, str]:
    """What was made of a stage comes after what was trained from it."""
    is_made = kind_of(folder) in _MADE
    return _depth(folder), is_made, _step(folder), str(folder)


def _depth(folder: Path) -> int:
    """How many stages came before."""
    depth, above = 0, parent_of(folder)
    while above is not None and depth < _DEPTH:
        depth, above = depth + 1, parent_of(above)
    runs = list(dict.fromkeys(entry.run for entry in read_training_record(folder) or ()))
    return max(depth, len(runs) - 1 + (kind_of(folder) in _MADE))


def _step(folder: Path) -> int:
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdecimal() else 0


def _names(folders: Sequence[Path]) -> list[str]:
    """The name of the run, or of the folder; longer where two would be the same."""
    names = [(run_of(folder) or folder).name for folder in folders]
    twice = {name for name in names if names.count(name) > 1}
    if not twice:
        return names
    longer = []
    for name, folder in zip(names, folders, strict=True):
        run = run_of(folder)
        same_run = [f for f in folders if run is not None and run_of(f) == run]
        if name not in twice:
            longer.append(name)
        elif len(same_run) > 1:
            longer.append(f"{name} {folder.name}")
        else:
            longer.append("/".join((run or folder).parts[-2:]))
    doubled = len(set(longer)) < len(longer)
    return [str(folder) for folder in folders] if doubled else longer


def _with_before(place: Place, number: int, places: Sequence[Place]) -> Place:
    values = {"folder": place.folder, "run": place.run, "name": place.name, "kind": place.kind}
    known = _index_of(parent_of(place.folder), places)
    if known is None and place.kind == "quantized":
        known = _index_by_weights(place.folder, places)
    if known is not None and known != number:
        return Place(**values, before=known, before_known=True)
    return Place(**values, before=number - 1 if number else None)


def _without_circles(places: list[Place]) -> list[Place]:
    """Two stages whose files name each other were not both made of the other: the first comes first."""
    kept = list(places)
    for number, place in enumerate(places):
        above, seen = place.before, {number}
        while above is not None and above not in seen:
            seen.add(above)
            above = kept[above].before
        if above == number:
            kept[number] = replace(place, before=None, before_known=False)
    return kept


def _index_of(folder: Path | None, places: Sequence[Place]) -> int | None:
    """The stage of that checkpoint, else of another checkpoint of the same run."""
    if folder is None:
        return None
    exact = [i for i, place in enumerate(places) if place.folder == folder]
    run = run_of(folder)
    same = [i for i, place in enumerate(places) if run is not None and place.run == run]
    return next(iter([*exact, *same]), None)


def _index_by_weights(folder: Path, places: Sequence[Place]) -> int | None:
    """The stage whose weights a quantized folder names, where it was moved."""
    named = read_object(folder / "quantization.json").get("weights_sha256")
    for number, place in enumerate(places):
        if place.folder != folder and place.kind != "lora":
            try:
                if weights_sha256(place.folder) == named:
                    return number
            except UserError:
                continue
    return None


def _verb(folder: Path) -> str | None:
    verb = read_object(folder / MARKER).get("verb")
    return verb if isinstance(verb, str) else None


def _found(path: Path) -> Path | None:
    try:
        return find_checkpoint(path).resolve()
    except UserError:
        return None

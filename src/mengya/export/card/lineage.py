"""Where a checkpoint comes from: the runs that made it and their data, as far as files on this disk tell.

    RUN/checkpoints/STEP -> RUN/config.yaml -> init_from -> the run before -> ...
    a folder of `mengya quantize` -> .mengya-source.json -> the checkpoint that it was made from

What is not there is None: a folder that was downloaded, merged or moved has no run above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mengya.errors import UserError
from mengya.models.hf.open_checkpoint import find_checkpoint
from mengya.runtime.jsonl import read_metrics
from mengya.runtime.made_from import read_source
from mengya.runtime.output_folder import MARKER
from mengya.runtime.yaml_values import read_object

_MAX_RUNS = 12


@dataclass(frozen=True)
class DataSource:
    """What a run was trained on, as the manifest of its shards says.

    Attributes:
        license: None: it is not known.
        files: name and SHA-256 of each; paths of this machine are left out.
    """

    name: str
    license: str | None
    kind: str
    documents: int | None
    tokens: int | None
    files: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One training run; None is not known.

    Attributes:
        verb: pretrain, sft or dpo.
        lora: rank of the adapter.
        loss: of its last step (nats per token, where it is one of next tokens).
    """

    name: str
    verb: str | None
    step: int | None
    tokens: int | None
    loss: float | None
    validation_bits_per_char: float | None
    learning_rate: float | None
    batch: int | None
    sequence_length: int | None
    lora: int | None
    sources: list[DataSource]
    missing_shards: int


@dataclass(frozen=True)
class Lineage:
    """How a checkpoint came to be.

    Attributes:
        runs: the latest first.
        base: the folder that the first of them started from, if it is no run.
        quantized: bits and method, if its weights were rounded after training.
    """

    runs: list[Run]
    base: str | None
    quantized: str | None = None


def lineage_of(checkpoint: Path) -> Lineage:
    """What is known of a checkpoint folder."""
    folder = checkpoint.resolve()
    record = read_object(folder / "quantization.json")
    quantized = None
    if record:
        quantized = f"{_float(record.get('mean_bits')) or 0:g} bits ({record.get('method')})"
        folder = _found(read_source(folder)) or folder
    runs, base = _runs(folder)
    return Lineage(runs, base, quantized)


def _runs(folder: Path | None) -> tuple[list[Run], str | None]:
    runs: list[Run] = []
    while folder is not None and len(runs) < _MAX_RUNS:
        run_dir = folder.parent.parent
        config = read_object(run_dir / "config.yaml") if folder.parent.name == "checkpoints" else {}
        if not config:
            return runs, folder.name if runs else None
        runs.append(_run(run_dir, folder, config))
        start = config.get("init_from")
        folder = Path(start).resolve() if isinstance(start, str) else None
    return runs, None


def _found(path: object) -> Path | None:
    """The checkpoint that a path means, if it is still there."""
    try:
        return find_checkpoint(Path(str(path))).resolve() if path else None
    except UserError:
        return None


def _run(run_dir: Path, checkpoint: Path, config: Mapping[str, Any]) -> Run:
    step = _step(checkpoint)
    metrics = _metrics(run_dir / "metrics.jsonl", step)
    data = _section(config, "data")
    folders = [source.get("path") for source in _objects(data, "train")]
    manifests = [read_object(Path(str(folder)) / "manifest.json") for folder in folders]
    return Run(
        name=run_dir.name,
        verb=_text(read_object(run_dir / MARKER).get("verb")),
        step=step,
        tokens=_int(metrics.get("tokens")),
        loss=_float(metrics.get("loss")),
        validation_bits_per_char=_float(metrics.get("validation/bits_per_char")),
        learning_rate=_float(_section(config, "optimizer").get("lr")),
        batch=_int(config.get("global_batch_size")),
        sequence_length=_int(data.get("sequence_length")),
        lora=_int(_section(config, "lora").get("rank")),
        sources=[source for manifest in manifests for source in _sources(manifest)],
        missing_shards=sum(not manifest for manifest in manifests),
    )


def _sources(manifest: Mapping[str, Any]) -> Iterator[DataSource]:
    for source in _objects(manifest, "sources"):
        files = _objects(source, "files")
        yield DataSource(
            name=_shown_name(source, files),
            license=_text(source.get("license")),
            kind=str(manifest.get("kind")),
            documents=_int(source.get("documents")),
            tokens=_int(source.get("tokens")),
            files=[(Path(str(f.get("path"))).name, str(f.get("sha256"))) for f in files],
        )


def _shown_name(source: Mapping[str, Any], files: list[dict[str, Any]]) -> str:
    """The name that the user gave; a path is cut to its last part."""
    name = str(source.get("name") or "")
    return Path(name).name if "/" in name or "\\" in name else name or f"{len(files)} files"


def _step(checkpoint: Path) -> int | None:
    number = checkpoint.name.removeprefix("step-")
    return int(number) if number.isdecimal() else None


def _metrics(path: Path, step: int | None) -> dict[str, Any]:
    """The last value of each metric up to the step."""
    found: dict[str, Any] = {}
    try:
        for line in read_metrics(path):
            if step is None or line["step"] <= step:
                found |= line
    except (OSError, UserError):  # not there, or damaged: then no more is known
        return found
    return found


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = values.get(name)
    return section if isinstance(section, dict) else {}


def _objects(values: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    items = values.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _int(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

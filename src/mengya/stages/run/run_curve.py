"""The curve of a run on the reference text: from its metrics, else of its checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from mengya.errors import UserError
from mengya.evaluation.reference.placement import RunCurve
from mengya.evaluation.reference.reference_text import NAME, is_complete, reference_text
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig
from mengya.models.hf.open_checkpoint import checkpoint_config, find_checkpoint, open_checkpoint
from mengya.planning.sizes import parameter_counts
from mengya.runtime.checkpoint_names import step_folders
from mengya.runtime.jsonl import read_metrics
from mengya.runtime.yaml_values import read_object
from mengya.training.telemetry.yardsticks import PREFIX


def is_from_scratch(settings: dict[str, Any]) -> bool:
    """Whether the run began with random weights: only such a one has a place among the references."""
    return settings.get("model") is not None and settings.get("init_from") is None


def logged_curve(run_dir: Path) -> RunCurve | None:
    """What the run measured while it trained (loop.yardsticks=reference_text).

    None where it measured nothing, only a part of the text, or did not begin with random weights.
    """
    settings = read_object(run_dir / "config.yaml")
    loop = settings.get("loop")
    limit = loop.get("yardstick_limit") if isinstance(loop, dict) else None
    if not is_from_scratch(settings) or not is_complete(limit):
        return None
    points = {
        line["tokens"]: line[f"{PREFIX}{NAME}"]
        for line in read_metrics(run_dir / "metrics.jsonl")
        if f"{PREFIX}{NAME}" in line and line.get("tokens")
    }
    return _curve(run_dir, points)


def measured_curve(run_dir: Path, device: torch.device, dtype: torch.dtype) -> RunCurve | None:
    """The same of the checkpoints that the run has; some seconds for each.

    Raises:
        UserError: a checkpoint cannot be opened.
    """
    if not is_from_scratch(read_object(run_dir / "config.yaml")):
        return None
    points: dict[int, float] = {}
    for folder in step_folders(run_dir / "checkpoints"):
        tokens = _tokens_of(folder)
        if tokens:
            model, tokenizer = open_checkpoint(folder, device, dtype)
            subject = Subject(model, tokenizer, folder, chat=False)
            points[tokens] = reference_text(subject, YardstickConfig()).measurements[0].value
    return _curve(run_dir, points)


def _curve(run_dir: Path, points: dict[int, float]) -> RunCurve | None:
    finite = tuple(sorted((t, bits) for t, bits in points.items() if math.isfinite(bits)))
    if not finite:
        return None
    counts = parameter_counts(checkpoint_config(find_checkpoint(run_dir)))
    return RunCurve(run_dir.name, counts.total, counts.active, finite)


def _tokens_of(checkpoint: Path) -> int:
    """That the run had trained on; 0 where the checkpoint has no trainer/state.json."""
    try:
        state = json.loads((checkpoint / "trainer/state.json").read_text(encoding="utf-8"))
        return int(state["tokens"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{checkpoint}/trainer/state.json is damaged ({error})") from error

"""Why a loss lags behind the reference curves: the usual causes, what of a run speaks for each, what to type.

Takes the settings of a run (config.yaml) and its metrics as mappings; reads nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FEW_TOKENS = 20  # for each parameter: about what uses the FLOPs best (Hoffmann et al. 2022, arXiv:2203.15556)
FULL_ROWS = 0.9  # share of positions that are no pads
_OVERFIT = 0.05  # validation loss above its lowest


@dataclass(frozen=True)
class Cause:
    """seen: what in the run speaks for it, empty where nothing does. check: what to type or look at."""

    name: str
    seen: str
    check: str


def usual_causes(
    settings: Mapping[str, Any],
    metrics: Sequence[Mapping[str, float]],
    active_parameters: int,
    run: str,
) -> list[Cause]:
    """All of them, those that something in the run speaks for first.

    Args:
        run: its folder, for the commands.
    """
    sources = (settings.get("data") or {}).get("train") or [{}]
    shards, tokenizer = _path(sources[0]), settings.get("tokenizer") or "TOKENIZER"
    config = f"{run}/config.yaml"
    causes = [
        Cause(
            "too few steps",
            _few_tokens(metrics, active_parameters),
            f"mengya plan {config}: its tokens and epochs; then more max_steps or epochs, or more data",
        ),
        Cause(
            "learning rate",
            _rate(settings, metrics),
            f"mengya plan {config} warns of unusual rates; try half and twice optimizer.lr on a tenth of the "
            "steps and take the lower loss",
        ),
        Cause(
            "pads",
            _pads(settings, metrics),
            f"mengya plan {config} --json: `fill` is the share of positions that hold text; a shorter "
            "data.sequence_length fills rows",
        ),
        Cause(
            "wrong labels",
            "",
            f"mengya inspect {shards} tokenizer={tokenizer}: what a loss is taken on; all of it in text",
        ),
        Cause(
            "tokenizer",
            "",
            f"mengya tokenizer compare {tokenizer} texts=FILE: characters per token; unknown must be 0 %",
        ),
        Cause(
            "duplicates",
            _overfit(metrics),
            f"mengya inspect {shards} tokenizer={tokenizer}: duplicates and sources; prepare again with "
            "near_duplicates.action=drop, or train fewer epochs",
        ),
        Cause(
            "unstable steps",
            _skipped(metrics),
            f"{run}/log.txt names skipped steps and rewinds; a lower optimizer.lr or a longer warmup",
        ),
        Cause(
            "other text",
            "",
            f"mengya evaluate {run} yardsticks=reference_text: domains that alone are high lack in the data",
        ),
    ]
    return sorted(causes, key=lambda cause: not cause.seen)  # stable: else in the order above


def _path(source: Any) -> str:
    return str(source.get("path", "SHARDS")) if isinstance(source, Mapping) else str(source)


def _values(metrics: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [m[name] for m in metrics if name in m and math.isfinite(m[name])]


def _few_tokens(metrics: Sequence[Mapping[str, float]], active_parameters: int) -> str:
    tokens = _values(metrics, "tokens")
    each = tokens[-1] / active_parameters if tokens else math.inf
    return (
        f"{each:.2g} tokens for each parameter, less than {FEW_TOKENS}" if each < FEW_TOKENS else ""
    )


def _rate(settings: Mapping[str, Any], metrics: Sequence[Mapping[str, float]]) -> str:
    factors = _values(metrics, "lr_factor")
    if factors and factors[-1] > 0.5:
        return f"it ended at {factors[-1]:.0%} of its peak: the loss falls while the rate does"
    limit = (settings.get("optimizer") or {}).get("max_grad_norm")
    norms = _values(metrics, "grad_norm")
    late = norms[len(norms) // 2 :]
    clipped = sum(norm > limit for norm in late) if limit else 0
    if late and clipped > len(late) / 2:
        return (
            f"the gradient norm was above {limit:g} in {clipped / len(late):.0%} of the later lines"
        )
    return ""


def _pads(settings: Mapping[str, Any], metrics: Sequence[Mapping[str, float]]) -> str:
    last = next((m for m in reversed(metrics) if "tokens" in m), None)
    rows, length = (
        settings.get("global_batch_size"),
        (settings.get("data") or {}).get("sequence_length"),
    )
    if last is None or not rows or not length or settings.get("batch_ramp"):
        return ""
    filled = last["tokens"] / ((last["step"] - last.get("skipped", 0)) * rows * length or math.inf)
    return f"{filled:.0%} of the positions hold text" if 0 < filled < FULL_ROWS else ""


def _overfit(metrics: Sequence[Mapping[str, float]]) -> str:
    losses = _values(metrics, "validation/nll") or _values(metrics, "validation/loss")
    if len(losses) > 1 and losses[-1] > min(losses) * (1 + _OVERFIT):
        return (
            f"validation rose from {min(losses):.3f} to {losses[-1]:.3f}: training text is repeated"
        )
    return ""


def _skipped(metrics: Sequence[Mapping[str, float]]) -> str:
    skipped, last = _values(metrics, "skipped"), max((m["step"] for m in metrics), default=0)
    share = skipped[-1] / last if skipped and last else 0.0
    return f"{share:.1%} of the steps were skipped" if share > 0.01 else ""

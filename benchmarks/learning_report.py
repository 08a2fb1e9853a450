"""What the JSONL files of benchmarks/learning.py say: tables, and a picture of the final runs or, where
there are none, of those for so many minutes."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learning_plan import ADAMW, MUON, Run


@dataclass(frozen=True)
class Result:
    """A finished run. lines: its evaluations, the last one at its end."""

    run: Run
    machine: str
    lines: list[dict[str, float]]

    @property
    def bits(self) -> float:
        """Held-out bits per character at the end; a run that came apart is worse than any."""
        bits = self.lines[-1]["bits_per_char"]
        return bits if math.isfinite(bits) else math.inf

    @property
    def tokens_per_second(self) -> float:
        return self.lines[-1]["tokens"] / self.lines[-1]["seconds"]


def read_results(folder: Path) -> list[Result]:
    """The finished runs; files of others are skipped."""
    results = []
    for path in sorted(folder.glob("*.jsonl")):
        lines: list[dict[str, Any]] = []
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:  # cut off while it was written
                break
        if len(lines) > 2 and lines[-1].get("final"):
            results.append(Result(Run(**lines[0]["run"]), lines[0]["machine"], lines[1:-1]))
    return results


def best_run(results: Sequence[Result], phase: str, shape: str, family: str) -> Run:
    found = [
        r for r in results if (r.run.phase, r.run.shape, r.run.family) == (phase, shape, family)
    ]
    if not found:
        raise SystemExit(f"no finished {phase} run of {family} at {shape}: run the search first")
    return min(found, key=lambda r: r.bits).run


def report(results: Sequence[Result], picture: Path) -> None:
    """Print the tables and draw the picture."""
    for phase in ("search", "width", "box"):
        _print_settings([r for r in results if r.run.phase == phase], phase)
    final = [r for r in results if r.run.phase == "final"]
    for shape in dict.fromkeys(r.run.shape for r in final):
        _print_final([r for r in final if r.run.shape == shape], shape)
    shown = final or [r for r in results if r.run.phase == "box"]
    if shown:
        _draw(shown, picture, by_time=not final)
        print(f"\n{picture}")


def _settings(run: Run) -> str:
    shown = {k: v for k, v in run.optimizer.items() if k not in ("name", "muon")}
    shown |= {f"muon.{k}": v for k, v in run.optimizer.get("muon", {}).items()}
    parts = [*(f"{k} {v:g}" for k, v in shown.items()), f"decay {run.decay:g}"]
    return ", ".join([*parts, "fp8"] if run.fp8 else parts)


def _print_settings(results: Sequence[Result], phase: str) -> None:
    if not results:
        return
    machines = ", ".join(dict.fromkeys(r.machine for r in results))
    print(f"\n{phase}: held-out bits per character, on {machines}")
    print(
        "| shape | optimizer | settings | tokens | bits/char | tokens/s |\n|---|---|---|---|---|---|"
    )
    for r in sorted(results, key=lambda r: (r.run.shape, r.run.family, r.bits)):
        print(
            f"| {r.run.shape} | {r.run.optimizer['name']} | {_settings(r.run)} | "
            f"{r.run.tokens / 1e6:.1f}M | {r.bits:.4f} | {r.tokens_per_second:,.0f} |"
        )
    for family in (ADAMW, MUON) if phase == "search" else ():
        group = [r for r in results if r.run.family == family]
        rates = [r.run.optimizer["lr"] for r in group]
        best = min(group, key=lambda r: r.bits, default=None)
        if best and best.run.optimizer["lr"] in (min(rates), max(rates)):
            print(f"{family} is best at an end of the searched rates: the best may lie beyond")


def _print_final(results: Sequence[Result], shape: str) -> None:
    adamw = {r.run.seed: r for r in results if r.run.family == ADAMW}
    muon = [r for r in results if r.run.family == MUON and r.run.seed in adamw]
    if not muon:
        print(f"\n{shape}: no pair of finished runs yet")
        return
    first, tokens = muon[0], next(iter(adamw.values())).run.tokens
    print(
        f"\n{shape}: AdamW ({_settings(next(iter(adamw.values())).run)}) for {tokens / 1e6:.0f}M tokens"
    )
    print(f"against {first.run.optimizer['name']} ({_settings(first.run)}), on {first.machine}")
    shares = sorted({r.run.share for r in muon})
    print(
        "| seed | adamw | " + " | ".join(f"{s:.0%} of the tokens" for s in shares) + " | equal at |"
    )
    print("|---|---|" + "---|" * (len(shares) + 1))
    for seed, base in sorted(adamw.items()):
        points = {r.run.share: r.bits for r in muon if r.run.seed == seed}
        _print_row(str(seed), base.bits, points, shares)
    means = {s: statistics.mean(r.bits for r in muon if r.run.share == s) for s in shares}
    _print_row("mean", statistics.mean(r.bits for r in adamw.values()), means, shares)
    for name, group in (("AdamW", list(adamw.values())), (first.run.optimizer["name"], muon)):
        print(f"{name}: {statistics.median(r.tokens_per_second for r in group):,.0f} tokens/s")


def _print_row(
    title: str, target: float, points: dict[float, float], shares: Sequence[float]
) -> None:
    cells = [f"{points[s]:.4f}" if s in points else "" for s in shares]
    print(f"| {title} | {target:.4f} | {' | '.join(cells)} | {crossing(points, target)} |")


def crossing(points: dict[float, float], target: float) -> str:
    """The share of AdamW's tokens at which Muon ends at `target` bits: between two shares by a
    straight line over the logarithm of tokens, outside of them a bound."""
    reached = [share for share, bits in points.items() if bits <= target]
    missed = [share for share, bits in points.items() if bits > target]
    if not reached:
        return f"> {max(missed):.0%}" if missed else ""
    upper = min(reached)
    lower = max((share for share in missed if share < upper), default=None)
    if lower is None:
        return f"< {upper:.0%}"
    part = (points[lower] - target) / (points[lower] - points[upper])
    return f"{math.exp(math.log(lower) + part * math.log(upper / lower)):.0%}"


def _draw(results: Sequence[Result], picture: Path, by_time: bool) -> None:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "mengya"  # the same file from the same numbers
    unit, key, label_x = (60, "seconds", "minutes") if by_time else (1e6, "tokens", "tokens (M)")
    shapes = list(dict.fromkeys(r.run.shape for r in results))
    figure = Figure(figsize=(5.2 * len(shapes), 4), layout="constrained")
    FigureCanvasSVG(figure)
    colours = {ADAMW: "#888888", MUON: "#2a7f3f"}
    for axes, shape in zip(figure.subplots(1, len(shapes), squeeze=False)[0], shapes, strict=True):
        named = set()
        for r in (r for r in results if r.run.shape == shape):
            name = r.run.optimizer["name"] + (", fp8" if r.run.fp8 else "")
            look = {"color": colours[r.run.family], "linestyle": "--" if r.run.fp8 else "-"}
            x = [line[key] / unit for line in r.lines]
            y = [line["bits_per_char"] for line in r.lines]
            axes.plot(x, y, alpha=0.6, linewidth=1, label=None if name in named else name, **look)
            named.add(name)
            axes.plot(x[-1:], y[-1:], "o", color=colours[r.run.family], markersize=4)
        ends = [r.bits for r in results if (r.run.shape, r.run.family) == (shape, ADAMW)]
        if ends:
            axes.axhline(statistics.mean(ends), color=colours[ADAMW], linestyle=":", linewidth=1)
        low, high = min(ends, default=1.0), max(r.lines[0]["bits_per_char"] for r in results)
        axes.set(
            title=shape, xlabel=label_x, ylabel="held-out bits per character",
            ylim=(low * 0.96, min(high, low * 1.5)),
        )  # fmt: skip
        axes.legend()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None})

"""Several runs in one picture: each a line, references grey beneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mengya.training.telemetry.svg import new_figure, to_svg


@dataclass(frozen=True)
class Line:
    """name: in the legend. points: (x, y). reference: drawn grey and dashed, its name at its end."""

    name: str
    points: Sequence[tuple[float, float]]
    reference: bool = False


def draw_lines(title: str, lines: Sequence[Line], logarithmic: bool = False) -> Markup | None:
    """The picture over tokens, or None where no line has a point; colours follow the order of the lines."""
    if not any(line.points for line in lines):
        return None
    from matplotlib.ticker import EngFormatter

    figure, axes = new_figure(height=3.6, width=6.2)
    colour = 0
    for line in lines:
        if line.reference:
            xs, ys = zip(*line.points, strict=True)
            axes.plot(xs, ys, color="0.6", linestyle="--", linewidth=1, zorder=1)
            axes.annotate(
                line.name, (xs[-1], ys[-1]), fontsize=7, color="0.4", ha="right", va="top"
            )
            continue
        if line.points:
            marker = "o" if len(line.points) < 40 else None
            xs, ys = zip(*line.points, strict=True)
            axes.plot(
                xs, ys, color=f"C{colour}", label=line.name, marker=marker, markersize=3, zorder=2
            )
        colour += 1  # a run keeps its colour in pictures where others have no point
    if logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:.3g}")
        axes.yaxis.set_minor_formatter("{x:.3g}")
        axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20M, not 2e7
    axes.grid(alpha=0.3)
    if colour:
        axes.legend(fontsize=8)
    return to_svg(figure, axes, title, fonttype="none", xlabel="tokens")

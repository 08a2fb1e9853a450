"""Pictures as inline SVG, by matplotlib: an empty figure, and its text.

Takes numbers and names; knows no metrics and no files.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

from markupsafe import Markup


def new_figure(height: float, width: float = 5.2) -> tuple[Any, Any]:
    """A figure of so many inches, and its axes."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots()


def to_svg(
    figure: Any, axes: Any, title: str, fonttype: str = "path", xlabel: str = "step"
) -> Markup:
    """The drawing.

    Args:
        fonttype: path draws letters; none leaves text to the fonts of the reader (Chinese).
    """
    from matplotlib import rc_context

    axes.set_title(title, fontsize=10)
    axes.set_xlabel(xlabel, fontsize=9)
    text = io.StringIO()
    with rc_context({"svg.fonttype": fonttype}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(text, format="svg")
    svg = text.getvalue()
    # Our own drawing; matplotlib escapes the names in it.
    return Markup(svg[svg.index("<svg") :])

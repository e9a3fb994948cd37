"""Colours and files of pictures: light and dark, told apart without red and green.

Towards and away are Okabe and Ito's vermilion and blue (https://jfly.uni-koeln.de/color/), which keep
apart under every kind of colour blindness, and in dark a lighter pair; shape says the same again.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160


@dataclass(frozen=True)
class Palette:
    """Colours of one picture; `ramp`: matplotlib's name of a scale from little to much."""

    ink: str
    soft: str
    line: str
    ground: str
    towards: str
    away: str
    ramp: str


LIGHT = Palette("#16303f", "#51697a", "#dbe4ea", "#ffffff", "#c94f00", "#0072b2", "Blues")
DARK = Palette("#e6eef3", "#a8bac6", "#33454f", "#121a20", "#ff9e57", "#6db9e3", "cividis")


def quiet(axes: Axes, colours: Palette) -> None:
    """No frame, soft ticks, on the page's ground."""
    axes.set_facecolor(colours.ground)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(colors=colours.soft, length=0, labelsize=9)


def as_png(figure: Figure) -> bytes:
    """PNG bytes."""
    return _saved(figure, "png")


def as_svg(figure: Figure) -> bytes:
    """SVG bytes, the same for the same figure; text stays text."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hymate"}):
        return _saved(figure, "svg")


def _saved(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(content, format=kind, dpi=DPI, facecolor=figure.get_facecolor(), metadata=metadata)
    return content.getvalue()

"""Global importance as a picture: bars with intervals by feature, beside it when in the stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hymate.evaluate.explanation.overall import Importance, OverallImportance
from hymate.evaluate.explanation.palette import LIGHT, Palette, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = 25
NOT_CAUSE = "The model, not the patients: what it leans on, not what causes the outcome."
WIDTH, ROW_HEIGHT = 12.0, 0.33  # inches
LEFT, BARS, GAP = 2.9, 3.9, 0.35


def draw_overall(explained: OverallImportance, colours: Palette = LIGHT, rows: int = ROWS) -> Figure:
    """Features, then demographics; `rows` features at most."""
    from matplotlib.figure import Figure as NewFigure

    shown = explained.features[:rows]
    every = (*shown, *explained.static)
    above, below = 1.75, 0.65
    body = ROW_HEIGHT * max(len(every), 1)
    height = above + body + below
    figure = NewFigure(figsize=(WIDTH, height), facecolor=colours.ground)

    def axes(left: float, width: float, lines: int) -> Axes:
        tall = ROW_HEIGHT * max(lines, 1)
        made: Axes = figure.add_axes(
            (left / WIDTH, (below + body - tall) / height, width / WIDTH, tall / height)
        )
        quiet(made, colours)
        return made

    _bars(axes(LEFT, BARS, len(every)), every, len(shown), explained, colours)
    _when(
        figure,
        axes(LEFT + BARS + GAP, WIDTH - LEFT - BARS - GAP - 0.6, len(shown)),
        shown,
        explained,
        colours,
    )
    name = explained.task.replace("_", " ")
    stays = f"{explained.stays:,} stays of {explained.subjects:,} subjects, split {explained.split}"
    few = f"nothing that fewer than {explained.min_cell} subjects have"
    for down, text, size, colour, weight in (
        (0.34, f"What moves the model: {name}", 16.0, colours.ink, "bold"),
        (0.66, f"{stays}; {few}.", 10.0, colours.ink, "normal"),
        (0.92, NOT_CAUSE, 9.0, colours.soft, "normal"),
    ):
        figure.text(
            0.3 / WIDTH, 1 - down / height, text, fontsize=size, color=colour, fontweight=weight, va="center"
        )
    return figure


def _bars(
    axes: Axes,
    every: tuple[Importance, ...],
    features: int,
    explained: OverallImportance,
    colours: Palette,
) -> None:
    values = np.array([each.importance.value or 0.0 for each in every])
    rows = np.arange(len(every))
    fill = [colours.away if row < features else colours.soft for row in rows]
    axes.barh(rows, values, height=0.62, color=fill)
    for row, each in enumerate(every):
        low, high = each.importance.lower, each.importance.upper
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=colours.ink, linewidth=1.4, solid_capstyle="butt")
        axes.annotate(
            each.title if len(each.title) <= 34 else f"{each.title[:33]}…", (0, row),
            xycoords=("axes fraction", "data"), xytext=(-8, 0), textcoords="offset points", ha="right",
            va="center", fontsize=9.5, color=colours.ink,
        )  # fmt: skip
    if features < len(every):
        axes.axhline(features - 0.5, color=colours.soft, linewidth=0.8, linestyle=":")
    axes.set_ylim(len(every) - 0.5, -0.5)
    axes.set_xlim(left=0.0)
    axes.set_yticks([])
    axes.grid(axis="x", color=colours.line, linewidth=0.8)
    axes.set_axisbelow(True)
    interval = "; line: 95 % interval" if explained.resamples else ""
    axes.set_xlabel(f"mean absolute attribution ({explained.unit}){interval}", color=colours.soft, fontsize=9)
    if features < len(every):
        axes.annotate(
            "demographics below the line", (1.0, features - 0.5), xycoords=("axes fraction", "data"),
            xytext=(0, 3), textcoords="offset points", fontsize=8, color=colours.soft, ha="right",
        )  # fmt: skip


def _when(
    figure: Figure, axes: Axes, shown: tuple[Importance, ...], explained: OverallImportance, colours: Palette
) -> None:
    """Cells of feature x interval."""
    intervals = len(explained.edges) - 1
    table = np.full((max(len(shown), 1), intervals), np.nan)
    for row, each in enumerate(shown):
        table[row] = [np.nan if cell is None else cell for cell in each.by_time]
    axes.set_facecolor(colours.line)
    height = figure.get_size_inches()[1]
    image = axes.imshow(table, aspect="auto", cmap=colours.ramp, vmin=0.0, interpolation="nearest")
    for row in range(1, len(shown)):
        axes.axhline(row - 0.5, color=colours.ground, linewidth=1.5)
    step = max(1, -(-intervals // 9))
    marks = [k - 0.5 for k in range(0, intervals + 1, step)]
    names = [f"{explained.edges[k]:g}" for k in range(0, intervals + 1, step)]
    axes.set_xticks(marks, names)
    axes.set_yticks([])
    axes.set_xlabel("hours since the start of the window", color=colours.soft, fontsize=9)
    place = axes.get_position()
    scale = figure.add_axes((place.x0, place.y1 + 0.14 / height, place.width, 0.1 / height))
    bar = figure.colorbar(image, cax=scale, orientation="horizontal", ticklocation="top")
    bar.outline.set_visible(False)
    scale.tick_params(colors=colours.soft, length=0, labelsize=8)
    bar.set_label(
        f"mean absolute attribution in the interval ({explained.unit}); grey: too few subjects",
        color=colours.soft, fontsize=8.5,
    )  # fmt: skip

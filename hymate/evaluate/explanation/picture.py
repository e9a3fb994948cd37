"""One stay's explanation as a picture a clinician can read.

A row a feature, most important first; time runs to the right and ends at the prediction. A row's line is
the measured values, scaled to the row; a triangle marks each observation: its size is how much it moved
the model, its direction and colour which way. Bars at the right add up: from the reference to the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hymate.evaluate.explanation.local import Feature, StayExplanation, probability
from hymate.evaluate.explanation.palette import LIGHT, Palette, quiet
from hymate.evaluate.explanation.units import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = 12
LARGEST = 170.0  # area of the most important observation's mark, in points squared
SMALLEST = 14.0
NAMED = 3  # values written in a row
WIDTH, ROW_HEIGHT = 12.0, 0.56  # inches
NOT_CAUSE = (
    "What moved this model's answer: not what caused the outcome, and no advice. For the hospital only: this "
    "is one patient's record."
)
TIMES, DIVIDED = "\u00d7", "\u00f7"


def draw_stay(explained: StayExplanation, colours: Palette = LIGHT, rows: int = ROWS) -> Figure:
    """The picture of one stay; `rows` features by name, the others as one row."""
    from matplotlib.figure import Figure as NewFigure

    shown, others = explained.features[:rows], explained.features[rows:]
    lines = len(shown) + bool(others) + len(explained.static)
    strip = 0.75 if explained.has_attention else 0.0
    above, below = 1.35, 1.0  # inches for title and for axis and legend
    body = ROW_HEIGHT * max(lines, 1)
    height = above + strip + body + below
    figure = NewFigure(figsize=(WIDTH, height), facecolor=colours.ground)

    def axes(left: float, width: float, bottom: float, tall: float) -> Axes:
        made: Axes = figure.add_axes((left / WIDTH, bottom / height, width / WIDTH, tall / height))
        quiet(made, colours)
        return made

    timeline, bars = axes(2.9, 5.9, below, body), axes(9.1, 2.2, below, body)
    _timeline(timeline, explained, shown, lines, colours)
    _bars(bars, explained, shown, others, colours)
    _row_names(timeline, explained, shown, others, colours)
    if explained.has_attention:
        _attention(axes(2.9, 5.9, below + body + 0.1, strip - 0.15), explained, colours)
    _titles(figure, explained, colours, height)
    _key(figure, explained, colours, height)
    return figure


def _timeline(
    axes: Axes, explained: StayExplanation, shown: Sequence[Feature], lines: int, colours: Palette
) -> None:
    end = explained.lookback_hours
    axes.set_xlim(-0.02 * end, 1.02 * end)
    axes.set_ylim(lines - 0.5, -0.5)
    axes.set_yticks([])
    step = next(step for step in (1, 2, 3, 6, 12, 24, 168, 720, 8760, math.inf) if end / step <= 12)
    if math.isfinite(step):
        axes.set_xticks(np.arange(0, end + 1e-6, step))
    axes.set_xlabel(f"hours since the start of the window; prediction at {end:g} h", color=colours.soft)
    axes.grid(axis="x", color=colours.line, linewidth=0.8)
    axes.set_axisbelow(True)
    largest = max((abs(each.total) for feature in shown for each in feature.observations), default=0.0)
    for row, feature in enumerate(shown):
        axes.axhline(row + 0.5, color=colours.line, linewidth=0.8)
        _row(axes, row, feature, largest, colours)


def _row(axes: Axes, row: int, feature: Feature, largest: float, colours: Palette) -> None:
    hours = np.array([each.hours for each in feature.observations])
    totals = np.array([each.total for each in feature.observations])
    values = [each.value for each in feature.observations]
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    spread = high - low
    # Within the row, values run over 0.44 of its height: the mark and a number have to fit.
    y = np.array(
        [row + 0.05 - (0.44 * ((value - low) / spread - 0.5) if value is not None and spread else 0.0)
         for value in values]
    )  # fmt: skip
    if len(known) == len(values):
        axes.plot(hours, y, color=colours.soft, linewidth=0.8, alpha=0.6, zorder=2)
    axes.scatter(hours, y, s=4, color=colours.soft, linewidth=0, zorder=3)
    for sign, mark, colour in ((1, "^", colours.towards), (-1, "v", colours.away)):
        chosen = (totals * sign > 0) & (np.abs(totals) > 0.02 * largest)
        area = SMALLEST + (LARGEST - SMALLEST) * np.abs(totals[chosen]) / largest if largest else 0.0
        axes.scatter(
            hours[chosen], y[chosen], s=area, marker=mark, color=colour, alpha=0.85,
            edgecolor=colours.ground, linewidth=0.4, zorder=4,
        )  # fmt: skip
    width = axes.get_xlim()[1] - axes.get_xlim()[0]
    placed: list[float] = []
    for i in np.argsort(-np.abs(totals), kind="stable"):
        if len(placed) == NAMED:
            break
        if values[i] is None or any(abs(hours[i] - other) < 0.06 * width for other in placed):
            continue
        placed.append(float(hours[i]))
        axes.annotate(
            written(values[i]), (hours[i], y[i]), textcoords="offset points", xytext=(0, 6.5), ha="center",
            fontsize=8, color=colours.ink, zorder=5,
        )  # fmt: skip


def _row_names(
    axes: Axes,
    explained: StayExplanation,
    shown: Sequence[Feature],
    others: Sequence[Feature],
    colours: Palette,
) -> None:
    texts = [(feature.title, _extent(feature)) for feature in shown]
    if others:
        count = len(others)
        texts.append((f"{count} other feature{'s' * (count != 1)}", "together"))
    for each in explained.static:
        told = written(each.value) if each.recorded else "not recorded"
        texts.append((each.title, told if each.value is not None or not each.recorded else "yes"))
    for row, (name, detail) in enumerate(texts):
        axes.annotate(
            name if len(name) <= 34 else f"{name[:33]}…", (0, row), xycoords=("axes fraction", "data"),
            xytext=(-8, 6), textcoords="offset points", ha="right", va="center", fontsize=9.5,
            color=colours.ink,
        )  # fmt: skip
        axes.annotate(
            detail, (0, row), xycoords=("axes fraction", "data"), xytext=(-8, -6),
            textcoords="offset points", ha="right", va="center", fontsize=8, color=colours.soft,
        )  # fmt: skip
    first_static = len(texts) - len(explained.static)
    if explained.static:
        axes.axhspan(first_static - 0.5, len(texts) - 0.5, color=colours.line, alpha=0.45, linewidth=0)
        axes.annotate(
            "who the patient is: known from the start, at no hour of the record",
            (0.5, (first_static + len(texts) - 1) / 2), xycoords=("axes fraction", "data"), ha="center",
            va="center", fontsize=9, color=colours.soft, style="italic",
        )  # fmt: skip


def _extent(feature: Feature) -> str:
    values = [each.value for each in feature.observations if each.value is not None]
    count = len(feature.observations)
    times = f"{count} time{'s' * (count != 1)}"
    if not values:
        return times
    low, high = written(min(values)), written(max(values))
    span = low if low == high else f"{low} to {high}"
    return f"{span}, {times}, last {written(values[-1])}" if count > 1 else span


def _bars(
    axes: Axes,
    explained: StayExplanation,
    shown: Sequence[Feature],
    others: Sequence[Feature],
    colours: Palette,
) -> None:
    totals = [feature.total for feature in shown]
    if others:
        totals.append(math.fsum(feature.total for feature in others))
    totals += [each.total for each in explained.static]
    reach = max([abs(total) for total in totals] + [1e-9])
    axes.set_xlim(-1.75 * reach, 1.75 * reach)
    axes.set_ylim(len(totals) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.axvline(0, color=colours.soft, linewidth=0.8)
    for row, total in enumerate(totals):
        axes.barh(row, total, height=0.5, color=colours.towards if total > 0 else colours.away)
        axes.annotate(
            effect(total, explained.is_probability), (total, row), textcoords="offset points",
            xytext=(4 if total >= 0 else -4, 0), ha="left" if total >= 0 else "right", va="center",
            fontsize=8.5, color=colours.ink,
        )  # fmt: skip
    axes.set_title("in all", fontsize=9, color=colours.soft, pad=4)
    axes.set_xlabel(
        "odds times / divided by" if explained.is_probability else "in the label's unit", color=colours.soft
    )


def effect(total: float, is_probability: bool) -> str:
    """An attribution in words: as a factor of the odds, or as a number.

    >>> effect(0.6931, True), effect(-0.6931, True), effect(0.001, True), effect(-1.25, False)
    ('× 2', '÷ 2', '× 1', '-1.25')
    """
    if not is_probability:
        return f"{total:+.3g}"
    factor = math.exp(min(abs(total), 700.0))
    digits = f"{factor:.2f}".rstrip("0").rstrip(".") if factor < 10 else f"{factor:.0f}"
    return f"{TIMES if total >= 0 or digits == '1' else DIVIDED} {digits}"


def _attention(axes: Axes, explained: StayExplanation, colours: Palette) -> None:
    """Weights added up over each of 96 equal intervals."""
    end = explained.lookback_hours
    observations = [each for feature in explained.features for each in feature.observations]
    hours = np.array([each.hours for each in observations])
    weights = np.array([each.attention or 0.0 for each in observations])
    total, edges = np.histogram(hours, bins=96, range=(0.0, end), weights=weights)
    axes.bar(edges[:-1], total, width=np.diff(edges), align="edge", color=colours.soft, linewidth=0)
    axes.set_xlim(-0.02 * end, 1.02 * end)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.axhline(0, color=colours.line, linewidth=0.8)
    axes.annotate(
        "where the model read\n(fusion attention)", (0, 0.5), xycoords="axes fraction", xytext=(-8, 0),
        textcoords="offset points", ha="right", va="center", fontsize=8.5, color=colours.soft,
    )  # fmt: skip


def headline(explained: StayExplanation) -> tuple[str, str]:
    """What the model says, and what it would say of the reference."""
    name = explained.task.replace("_", " ")
    if explained.is_probability:
        says, before = percent(probability(explained.output)), percent(probability(explained.reference))
        return f"Risk of {name}: {says}", f"Reference ({explained.reference_short}): {before}."
    says, before = written(explained.output), written(explained.reference)
    return f"Expected {name}: {says}", f"Reference ({explained.reference_short}): {before}."


def percent(share: float) -> str:
    """Two digits, and never 0 or 100.

    >>> percent(0.4249), percent(0.0312), percent(0.00001), percent(0.9999)
    ('42 %', '3.1 %', 'below 0.1 %', 'above 99.9 %')
    """
    if share < 0.001:
        return "below 0.1 %"
    if share > 0.999:
        return "above 99.9 %"
    return f"{100 * share:.0f} %" if 0.0995 <= share <= 0.9 else f"{100 * share:.1f} %"


def _titles(figure: Figure, explained: StayExplanation, colours: Palette, height: float) -> None:
    says, before = headline(explained)
    when = f"{explained.prediction_time:%Y-%m-%d %H:%M}"
    lines = (
        (0.34, says, 16.0, colours.ink, "bold"),
        (0.68, f"Subject {explained.subject_id}, predicted at {when}. {before}", 10.0, colours.ink, "normal"),
        (0.94, NOT_CAUSE, 9.0, colours.soft, "normal"),
    )
    for down, text, size, colour, weight in lines:
        figure.text(
            0.3 / WIDTH, 1 - down / height, text, fontsize=size, color=colour, fontweight=weight, va="center"
        )


def _key(figure: Figure, explained: StayExplanation, colours: Palette, height: float) -> None:
    from matplotlib.lines import Line2D

    towards, away = directions(explained)
    marks = [
        Line2D([], [], marker="^", color=colours.towards, linestyle="", markersize=9, label=towards),
        Line2D([], [], marker="v", color=colours.away, linestyle="", markersize=9, label=away),
        Line2D([], [], marker="^", color=colours.soft, linestyle="", markersize=4, label="moved it little"),
        Line2D([], [], marker="^", color=colours.soft, linestyle="", markersize=12, label="moved it much"),
        Line2D([], [], marker=".", color=colours.soft, linewidth=0.8, markersize=4, label="measured values"),
    ]  # fmt: skip
    figure.legend(
        handles=marks, loc="lower left", bbox_to_anchor=(0.2 / WIDTH, 0.08 / height), ncols=5, frameon=False,
        fontsize=9, labelcolor=colours.ink, handletextpad=0.5, columnspacing=1.6,
    )  # fmt: skip


def directions(explained: StayExplanation) -> tuple[str, str]:
    """Words for a positive and a negative attribution."""
    if explained.is_probability:
        return "towards risk", "away from risk"
    return "towards a larger number", "towards a smaller number"

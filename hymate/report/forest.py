"""Forest plot: one row a site (or group) with its interval, summaries below, figures at the right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from hymate.evaluate.estimates import Estimate
from hymate.report.svg import LETTER, line, picture, shortened, text, ticks
from hymate.report.words import estimate

WIDTH, ROW, TOP, BELOW = 720, 30, 12, 30
FIGURES = 176
"""Width of the column of figures."""
Span = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One line of the plot. value None: `words` say why.

    second: another model's value, a hollow square. reach: a span wider than the interval, dashed.
    summary: a diamond.
    """

    label: str
    value: float | None
    interval: Span | None = None
    second: float | None = None
    reach: Span | None = None
    summary: bool = False
    words: str = ""

    @property
    def told(self) -> str:
        """Its figures, or why there are none."""
        if self.value is None:
            return self.words
        return estimate(Estimate(self.value, (self.value, self.value), self.interval))


def forest(
    rows: Sequence[Row], title: str, words: str, limits: Span, *, reference: float | None = None
) -> Markup:
    """Rows from top to bottom; a line parts the summaries from those before.

    Args:
        limits: no axis goes beyond these, wherever an interval ends.
        reference: value of a vertical line, as 0 for differences.
    """
    label_width = min(max((len(row.label) for row in rows), default=0) * LETTER + 18, 230)
    span = WIDTH - label_width - FIGURES - 12
    low, high = _ends(rows, reference, limits)

    def x(value: float) -> float:
        return label_width + span * (min(max(value, low), high) - low) / (high - low)

    height = TOP + ROW * len(rows) + BELOW
    floor = height - BELOW
    parts = []
    for tick in ticks(low, high):
        parts.append(line(x(tick), TOP - 4, x(tick), floor, "grid"))
        parts.append(text(x(tick), floor + 18, f"{tick:g}", "middle", "soft"))
    if reference is not None:
        parts.append(line(x(reference), TOP - 4, x(reference), floor, "reference"))
    for number, row in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        if number and row.summary > rows[number - 1].summary:
            parts.append(line(0, y - ROW / 2, WIDTH, y - ROW / 2, "rule"))
        parts.append(text(label_width - 12, y + 4, shortened(row.label, label_width - 12), "end"))
        parts.append(text(WIDTH - FIGURES + 6, y + 4, shortened(row.told, FIGURES)))
        parts += _marks(row, y, x)
    return picture(title, words, WIDTH, height, parts)


def _marks(row: Row, y: float, x: Callable[[float], float]) -> list[str]:
    parts = []
    if row.reach is not None:
        parts.append(line(x(row.reach[0]), y, x(row.reach[1]), y, "reach"))
    if row.interval is not None:
        parts.append(line(x(row.interval[0]), y, x(row.interval[1]), y, "interval"))
    if row.value is not None:
        at = x(row.value)
        if row.summary:
            left, right = (x(row.interval[0]), x(row.interval[1])) if row.interval else (at - 6, at + 6)
            ends = f"{left:.1f},{y:.1f} {at:.1f},{y - 7:.1f} {right:.1f},{y:.1f} {at:.1f},{y + 7:.1f}"
            parts.append(f'<polygon class="first" points="{ends}"/>')
        else:
            parts.append(
                f'<circle class="first" cx="{at:.1f}" cy="{y:.1f}" r="5.5">'
                f"<title>{escape(row.label)}: {row.told}</title></circle>"
            )
    if row.second is not None:
        at = x(row.second)
        parts.append(
            f'<rect class="second" x="{at - 3.5:.1f}" y="{y + 4.5:.1f}" width="7" height="7">'
            f"<title>{escape(row.label)}, other model: {row.second:.3f}</title></rect>"
        )
    return parts


def _ends(rows: Sequence[Row], reference: float | None, limits: Span) -> Span:
    """Room for every mark, within the limits, out to round numbers."""
    seen = [] if reference is None else [reference]
    for row in rows:
        seen += [value for value in (row.value, row.second) if value is not None]
        for span in (row.interval, row.reach):
            seen += span or ()
    low, high = (min(seen), max(seen)) if seen else limits
    low, high = max(limits[0], low), min(limits[1], high)
    if high - low < 0.1:
        low, high = max(limits[0], low - 0.05), min(limits[1], high + 0.05)
    step = 0.1 if high - low > 0.3 else 0.05
    return max(limits[0], step * int(low / step - (low < 0))), min(limits[1], step * int(high / step + 1))

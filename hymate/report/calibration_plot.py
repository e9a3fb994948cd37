"""Calibration plot: predicted risk against what happened, by tenths of predicted risk."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from hymate.evaluate.reliability import ReliabilityBin
from hymate.report.svg import line, picture, text

SIDE, LEFT, TOP, BOTTOM, BARS = 232, 34, 10, 40, 26
RIGHT = 12


def calibration_plot(bins: Sequence[ReliabilityBin], title: str) -> Markup:
    """Points with 95 % intervals beside a perfect model's diagonal; below, how many stays each is of."""
    if not bins:
        return Markup()
    width = LEFT + SIDE + RIGHT
    height = TOP + SIDE + BARS + BOTTOM

    def x(risk: float) -> float:
        return LEFT + SIDE * risk

    def y(risk: float) -> float:
        return TOP + SIDE * (1 - risk)

    parts = []
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(line(x(tick), TOP, x(tick), TOP + SIDE, "grid"))
        parts.append(line(LEFT, y(tick), LEFT + SIDE, y(tick), "grid"))
        parts.append(text(LEFT - 6, y(tick) + 4, f"{100 * tick:.0f}", "end", "soft"))
        parts.append(text(x(tick), height - 24, f"{100 * tick:.0f}", "middle", "soft"))
    parts.append(line(x(0), y(0), x(1), y(1), "reference"))
    parts.append(text(x(0.5), height - 7, "predicted risk (%)", "middle", "soft"))
    most = max(each.n for each in bins)
    floor = TOP + SIDE + BARS
    for each in bins:
        tall = max(1.0, (BARS - 4) * each.n / most)
        parts.append(
            f'<rect class="bar" x="{x(each.low) + 1:.1f}" y="{floor - tall:.1f}" '
            f'width="{SIDE * (each.high - each.low) - 2:.1f}" height="{tall:.1f}"/>'
        )
        at, (lowest, highest) = x(each.predicted), each.interval
        parts.append(line(at, y(lowest), at, y(highest), "interval"))
    path = " ".join(f"{x(each.predicted):.1f},{y(each.observed):.1f}" for each in bins)
    parts.append(f'<polyline class="first" points="{path}"/>')
    for each in bins:
        parts.append(
            f'<circle class="first" cx="{x(each.predicted):.1f}" cy="{y(each.observed):.1f}" r="4">'
            f"<title>{_words(each)}</title></circle>"
        )
    return picture(title, "; ".join(_words(each) for each in bins), width, height, parts)


def _words(each: ReliabilityBin) -> str:
    return (
        f"predicted {100 * each.predicted:.0f} %, happened in {100 * each.observed:.0f} % of {each.n:,} "
        f"stays ({100 * each.interval[0]:.0f} to {100 * each.interval[1]:.0f} %)"
    )

"""Small charts as SVG text: they live inside the report, need no network and print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 34


def dot_plot(rows: Mapping[str, Mapping[str, float | None]], title: str, low: float = 0.5) -> str:
    """One line per hospital, one dot per series; series by shape and shade, never by hue alone."""
    values = [value for row in rows.values() for value in row.values() if value is not None]
    low = min([low, *values])
    label_width = 8 * max((len(name) for name in rows), default=0) + 16
    height = 30 * len(rows) + 40
    span = WIDTH - label_width - 24

    def x(value: float) -> float:
        return label_width + span * (value - low) / (1.0 - low)

    parts = []
    for tick in _ticks(low, 1.0):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="8" y2="{height - 30}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 12}" text-anchor="middle">{tick:.1f}</text>')
    for number, (name, row) in enumerate(rows.items()):
        y = 24 + 30 * number
        parts.append(f'<text x="{label_width - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        for order, (series, value) in enumerate(row.items()):
            if value is None:
                continue
            label = f"<title>{escape(name)}, {escape(series)}: {value:.3f}</title>"
            if order == 0:
                parts.append(f'<circle class="first" cx="{x(value):.1f}" cy="{y}" r="6">{label}</circle>')
            else:
                corner = f'x="{x(value) - 5:.1f}" y="{y - 5}" width="10" height="10"'
                parts.append(f'<rect class="second" {corner}>{label}</rect>')
    return _svg(title, height, parts)


def line_chart(series: Mapping[str, Sequence[tuple[int, float]]], title: str) -> str:
    """Values by round; the first series is solid, the second dashed."""
    points = [point for line in series.values() for point in line]
    if not points:
        return ""
    rounds = [number for number, _ in points]
    low, high = min(v for _, v in points), max(v for _, v in points)
    pad = (high - low or abs(high) or 1.0) * 0.08
    low, high = low - pad, high + pad
    first, last = min(rounds), max(*rounds, min(rounds) + 1)

    def x(number: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (number - first) / (last - first)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = []
    for tick in _ticks(low, high):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    step = max(1, (last - first) // 10)
    for number in range(first, last + 1, step):
        parts.append(f'<text x="{x(number):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{number}</text>')
    for order, line in enumerate(series.values()):
        path = " ".join(f"{x(number):.1f},{y(value):.1f}" for number, value in line)
        kind = "first" if order == 0 else "second"
        parts.append(f'<polyline class="{kind}" points="{path}"/>')
        parts += [f'<circle class="{kind}" cx="{x(n):.1f}" cy="{y(v):.1f}" r="3"/>' for n, v in line]
    return _svg(title, HEIGHT, parts)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers inside [low, high], at most eight of them."""
    steps = (factor * 10.0**power for power in range(-4, 6) for factor in (1, 2, 5))
    step = next(step for step in steps if (high - low) / step <= 7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 6) for number in range(first, last + 1)]


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )

"""Curves of training by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from hymate.report.svg import LETTER, line, picture, text, ticks

WIDTH, HEIGHT = 720, 260
LEFT, TOP, BOTTOM = 52, 18, 40
Points = Sequence[tuple[int, float]]


def curves(series: Mapping[str, Points], title: str, words: str, *, kept: int | None = None) -> Markup:
    """Values by round, named at their last point: the first series solid, the second dashed.

    Args:
        kept: the round whose weights were kept gets a line of its own.
    """
    shown = {name: points for name, points in series.items() if points}
    if not shown:
        return Markup()
    right = 18 + LETTER * max(len(name) for name in shown)
    every = [point for points in shown.values() for point in points]
    first, last = min(number for number, _ in every), max(number for number, _ in every)
    last = max(last, first + 1)
    low, high = min(value for _, value in every), max(value for _, value in every)
    pad = (high - low or abs(high) or 1.0) * 0.08
    low, high = low - pad, high + pad

    def x(number: float) -> float:
        return LEFT + (WIDTH - LEFT - right) * (number - first) / (last - first)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = []
    for tick in ticks(low, high, 6):
        parts.append(line(LEFT, y(tick), WIDTH - right, y(tick), "grid"))
        parts.append(text(LEFT - 8, y(tick) + 4, f"{tick:g}", "end", "soft"))
    for tick in ticks(first, last, 10):
        if tick == int(tick):
            parts.append(text(x(tick), HEIGHT - 22, f"{tick:g}", "middle", "soft"))
    parts.append(text(x((first + last) / 2), HEIGHT - 5, "round", "middle", "soft"))
    if kept is not None and first <= kept <= last:
        parts.append(line(x(kept), TOP, x(kept), HEIGHT - BOTTOM, "reference"))
        side = "end" if kept > (first + last) / 2 else "start"
        parts.append(text(x(kept) + (-6 if side == "end" else 6), TOP + 10, f"kept: {kept}", side, "soft"))
    ends = _apart({name: y(points[-1][1]) for name, points in shown.items()})
    for kind, (name, points) in zip(("first", "second"), shown.items(), strict=False):
        path = " ".join(f"{x(number):.1f},{y(value):.1f}" for number, value in points)
        parts.append(f'<polyline class="{kind}" points="{path}"/>')
        parts += [f'<circle class="{kind}" cx="{x(n):.1f}" cy="{y(v):.1f}" r="3"/>' for n, v in points]
        parts.append(text(WIDTH - right + 8, ends[name] + 4, name, kind=f"{kind}-name"))
    return picture(title, words, WIDTH, HEIGHT, parts)


def _apart(places: Mapping[str, float], least: float = 15.0) -> dict[str, float]:
    """Heights of the names, moved so that no two overlap."""
    found: dict[str, float] = {}
    for name in sorted(places, key=lambda each: places[each]):
        found[name] = max([places[name], *(other + least for other in found.values())])
    return found

"""From the numbers a model is fed back to what was measured, and from codes to words."""

from __future__ import annotations

import numpy as np

from hymate.data.scaling import SCORES, VocabularyEntry


def measured_value(entry: VocabularyEntry, score: float) -> float | None:
    """The value in the vocabulary's unit that is scaled to `score`; None for a code without numbers.

    A value that was clipped comes back as what it was clipped to: what the model saw.

    >>> measured_value(VocabularyEntry("HR", "bpm", 80.0, 10.0, True), 1.5)
    95.0
    """
    if not entry.numeric:
        return None
    if entry.knots:
        return float(np.interp(score, SCORES, entry.knots))
    location, scale = entry.location_and_scale
    return location + scale * score


def written(value: float | None) -> str:
    """Four significant digits and no exponent where that is possible; "" for None.

    >>> [written(x) for x in (7.3500001, 120.0, 8123.4, 0.0, None)]
    ['7.35', '120', '8123', '0', '']
    """
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4g}"


def titled(code: str, unit: str, described: str | None) -> str:
    """A row's name: the description if the data set has a short one, else the code; then the unit."""
    name = described if described and len(described) <= 40 else code
    return f"{name} ({unit})" if unit and plain(unit) not in plain(name) else name


def plain(text: str) -> str:
    """Without case."""
    return text.casefold()

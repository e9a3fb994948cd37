"""Parts of pictures as SVG text: they live inside the page, need no network, print, and say what they show.

Colours are classes of the page's style, so that light and dark are the reader's; series differ by shape too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from markupsafe import Markup

LETTER = 7.6
"""Width of a letter at the pictures' 12 px, rather too much than too little."""


def picture(title: str, words: str, width: float, height: float, parts: Sequence[str]) -> Markup:
    """The whole picture; `words` tell its content to those who cannot see it."""
    return Markup(
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" '
        f'aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title><desc>{escape(words)}</desc>{''.join(parts)}</svg>"
    )


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """One line of text; `kind`: classes."""
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def shortened(words: str, width: float) -> str:
    """`words` as far as they fit into `width` pixels."""
    letters = max(4, int(width / LETTER))
    return words if len(words) <= letters else f"{words[: letters - 1]}…"


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers inside [low, high], about `most` of them."""
    steps = (factor * 10.0**power for power in range(-6, 9) for factor in (1, 2, 5))
    step = next(step for step in steps if (high - low) / step <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 9) for number in range(first, last + 1)]

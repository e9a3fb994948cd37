"""Tables of Markdown: their lines, and their place in a page between two markers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from hymate.durable import write_text


def head(names: Sequence[str]) -> list[str]:
    """A table's first two lines: text in the first column, figures in the others."""
    return [line(names), line(["---", *["---:"] * (len(names) - 1)])]


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def counted(found: int, wanted: int) -> str:
    """
    >>> counted(3, 3), counted(2, 3)
    ('3', '2 of 3')
    """
    return str(found) if found == wanted else f"{found} of {wanted}"


def spread(values: Sequence[float | None], *, sign: bool = False) -> str:
    """Mean and standard deviation.

    >>> spread([0.8, 0.9]), spread([0.85]), spread([]), spread([0.01], sign=True)
    ('0.850 ± 0.071', '0.850', '-', '+0.010')
    """
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):{'+' if sign else ''}.3f}"
    return f"{mean} ± {statistics.stdev(known):.3f}" if len(known) > 1 else mean


def put_between(
    markers: tuple[str, str], text: str, path: Path, beginning: str, place: Callable[[str], int] = len
) -> None:
    """Put `text` between two markers of a page; where they are missing, make them at `place` of the page.

    A page that is not there yet starts with `beginning`.
    """
    begin, end = markers
    content = path.read_text(encoding="utf-8") if path.is_file() else beginning
    block = f"{begin}\n{text.strip()}\n{end}"
    if begin in content and end in content:
        before, after = content.split(begin, 1)[0], content.split(end, 1)[1]
        write_text(path, before + block + after)
        return
    at = place(content)
    before, after = content[:at].rstrip(), content[at:].lstrip()
    write_text(path, f"{before}\n\n{block}\n" + (f"\n{after}" if after else ""))

"""Global importance as a page, and its files."""

from __future__ import annotations

from pathlib import Path

from hymate.evaluate.bootstrap import Figure
from hymate.evaluate.explanation.overall import OverallImportance
from hymate.evaluate.explanation.overall_picture import draw_overall
from hymate.evaluate.explanation.page import as_data, environment, write_files
from hymate.evaluate.explanation.palette import DARK, LIGHT, as_png, as_svg
from hymate.evaluate.explanation.pathway import reference_words


def overall_page(explained: OverallImportance, light: bytes, dark: bytes) -> str:
    """HTML, pictures (SVG) within."""
    templates = environment()
    templates.filters["figure"] = _with_interval
    return templates.get_template("overall.html.j2").render(
        it=explained,
        name=explained.task.replace("_", " "),
        reference=reference_words(explained.explains_measuring),
        rows=(*explained.features, *explained.static),
        light=as_data(light),
        dark=as_data(dark),
    )


def write_overall(folder: Path, explained: OverallImportance) -> tuple[Path, ...]:
    """explanation.json, .png, .svg and .html in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    light, dark = draw_overall(explained, LIGHT), draw_overall(explained, DARK)
    svg = as_svg(light)
    return write_files(
        folder, explained.to_json(), as_png(light), svg, lambda: overall_page(explained, svg, as_svg(dark))
    )


def _with_interval(figure: Figure) -> str:
    interval = "" if figure.lower is None else f" ({figure.lower:.3f} to {figure.upper:.3f})"
    return f"{figure.value:.3f}{interval}"

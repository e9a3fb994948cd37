"""An explanation as one self-contained page, and its files on disk."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hymate.durable import write_bytes, write_text
from hymate.evaluate.explanation.attention import CAVEAT
from hymate.evaluate.explanation.local import Feature, StayExplanation
from hymate.evaluate.explanation.palette import DARK, LIGHT, as_png, as_svg
from hymate.evaluate.explanation.picture import DIVIDED, TIMES, directions, draw_stay, headline
from hymate.evaluate.explanation.units import written

NAME = "explanation"
TOP = 20
PRIVATE = 0o700


def environment() -> Environment:
    """Templates of this package; every text is escaped."""
    made = Environment(
        loader=PackageLoader("hymate.evaluate.explanation", "."), autoescape=True, undefined=StrictUndefined
    )
    made.filters["number"] = written
    return made


def as_data(svg: bytes) -> str:
    """For a data: address."""
    return base64.b64encode(svg).decode("ascii")


def stay_page(explained: StayExplanation, light: bytes, dark: bytes) -> str:
    """HTML of one stay, pictures (SVG) within."""
    says, before = headline(explained)
    towards, away = directions(explained)
    observed = [(feature.title, each) for feature in explained.features for each in feature.observations]
    has_summary = any(each.summary for _, each in observed)
    return (
        environment()
        .get_template("local.html.j2")
        .render(
            it=explained,
            says=says,
            before=before,
            towards=towards,
            away=away,
            times=TIMES,
            divided=DIVIDED,
            caveat=CAVEAT,
            has_summary=has_summary,
            columns=4 + 2 * explained.explains_measuring,
            moved=explained.output - explained.reference,
            unit="log odds" if explained.is_probability else "unit of the label",
            features=[_row(feature) for feature in explained.features],
            top=sorted(observed, key=lambda row: -abs(row[1].total))[:TOP],
            light=as_data(light),
            dark=as_data(dark),
        )
    )


def write_stay(folder: Path, explained: StayExplanation) -> tuple[Path, ...]:
    """explanation.json, .png, .svg and .html in `folder`, which only its owner may enter if it is new."""
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    light, dark = draw_stay(explained, LIGHT), draw_stay(explained, DARK)
    svg = as_svg(light)
    return write_files(
        folder, explained.to_json(), as_png(light), svg, lambda: stay_page(explained, svg, as_svg(dark))
    )


def write_files(
    folder: Path, content: dict[str, Any], png: bytes, svg: bytes, page: Callable[[], str]
) -> tuple[Path, ...]:
    """The four files of an explanation, each whole or absent."""
    paths = tuple(folder / f"{NAME}.{kind}" for kind in ("json", "png", "svg", "html"))
    write_text(paths[0], json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_bytes(paths[1], png)
    write_bytes(paths[2], svg)
    write_text(paths[3], page())
    return paths


def _row(feature: Feature) -> dict[str, Any]:
    values = [each.value for each in feature.observations if each.value is not None]
    return {
        "title": feature.title,
        "count": len(feature.observations),
        "low": written(min(values)) if values else "",
        "high": written(max(values)) if values else "",
        "last": written(values[-1]) if values else "",
        "measured": math.fsum(each.measured for each in feature.observations),
        "found": math.fsum(each.found for each in feature.observations),
        "summary": math.fsum(each.summary for each in feature.observations),
        "total": feature.total,
    }

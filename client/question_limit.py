"""A model is evaluated with one set of questions: answers to slightly different ones could be subtracted.

No answer holds a small count, but between one set of edges and another, or between groups cut at 64 and at
65, lie few patients. So the site remembers, per weights and split, what it was asked, answers the same as
often as it is asked, and refuses another. Sums for recalibration are given at a few points only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.site import SiteConfig
from hymate.durable import write_text
from hymate.errors import InputFault
from hymate.scoring_protocol import EvaluateRequest, RecalibrateRequest
from strategies.wire import weights_digest

FILE = "questions.json"
MOST_POINTS = 16
"""Exchanges of recalibration sums for one model and split."""


def check_question(
    site: SiteConfig, request: EvaluateRequest, weights: Mapping[str, NDArray[np.generic]]
) -> None:
    """Remember the question; a request without detail asks nothing that could differ.

    Raises:
        InputFault: these weights were evaluated on this split with other edges or groups, or often enough,
            or what was asked cannot be read or kept.
    """
    if request.detail is None:
        return
    path = site.state / request.study / request.run / FILE
    known = _read(path, site)
    detail = _digest(request.detail.model_dump_json())
    asked = known.setdefault(f"{request.split} {weights_digest(weights)}", {"detail": detail, "points": []})
    if asked["detail"] != detail:
        raise InputFault(
            f"site {site.name}",
            f"has told its figures of this model on {request.split} with other edges or groups",
            "ask for all groups at once; a study begun anew asks afresh",
        )
    if isinstance(request, RecalibrateRequest):
        points = _digest(json.dumps(request.points, sort_keys=True))
        if points not in asked["points"]:
            asked["points"].append(points)
        if len(asked["points"]) > MOST_POINTS:
            raise InputFault(
                f"site {site.name}",
                f"has given sums for the recalibration of this model {MOST_POINTS} times",
                "go on without the slope",
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(known))
    except OSError as fault:
        raise InputFault(
            f"site {site.name}",
            f"cannot remember what it was asked ({fault.strerror or fault})",
            "the site frees its `state` folder",
        ) from None


def _read(path: Path, site: SiteConfig) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise InputFault(
            f"site {site.name}",
            "cannot read what it was asked before",
            f"the site restores {FILE} in its `state` folder",
        ) from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

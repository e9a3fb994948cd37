"""Algorithms by the name the study file uses."""

from __future__ import annotations

import difflib
from typing import Any

from hymate.config import parse
from hymate.errors import InputFault
from strategies.base import Algorithm
from strategies.fedavg import FedAvg

ALGORITHMS: dict[str, type[Algorithm]] = {kind.name: kind for kind in (FedAvg,)}


def make_algorithm(name: str, settings: dict[str, Any], source: str = "study") -> Algorithm:
    """The algorithm called `name`; an unknown name or key is one `InputFault`."""
    if name not in ALGORITHMS:
        near = difflib.get_close_matches(name, ALGORITHMS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(ALGORITHMS))}"
        raise InputFault(source, f"strategy.name: no algorithm is called '{name}'", hint)
    kind = ALGORITHMS[name]
    return kind(parse(kind.Settings, settings, f"{source}: strategy"))

"""Algorithms by the name the study file uses, and which combinations make sense."""

from __future__ import annotations

import difflib

from hymate.config import parse
from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig
from strategies.base import Algorithm
from strategies.compression import demand_order, loses
from strategies.fedavg import FedAvg

ALGORITHMS: dict[str, type[Algorithm]] = {kind.name: kind for kind in (FedAvg,)}


def make_algorithm(strategy: StrategyConfig, source: str = "study") -> Algorithm:
    """The algorithm a study asks for; an unknown name or key, or a combination that is wrong, is one
    `InputFault`."""
    name = strategy.name
    if name not in ALGORITHMS:
        near = difflib.get_close_matches(name, ALGORITHMS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(ALGORITHMS))}"
        raise InputFault(source, f"strategy.name: no algorithm is called '{name}'", hint)
    kind = ALGORITHMS[name]
    algorithm = kind(parse(kind.Settings, strategy.settings, f"{source}: strategy"))
    demand_order(strategy.compression, source)
    if kind.exact_updates and loses(strategy.compression):
        raise InputFault(
            source,
            f"strategy.compression loses digits, and {name} needs updates as they are: {kind.exact_updates}",
            "leave compression out, or take another algorithm",
        )
    return algorithm


def is_personal(strategy: StrategyConfig) -> bool:
    """Whether a site's own model differs from the shared one."""
    return bool(strategy.local_layers) or ALGORITHMS[strategy.name].personal

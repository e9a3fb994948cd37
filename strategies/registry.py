"""Algorithms by the name the study file uses, and which combinations make sense."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil

import strategies
from hymate.config import parse
from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig
from strategies.base import Algorithm
from strategies.compression import demand_order, loses


def _found() -> dict[str, type[Algorithm]]:
    """Every algorithm that a module of this package defines: a new one is a new file and nothing else."""
    names = [module.name for module in pkgutil.iter_modules(strategies.__path__) if module.name != "registry"]
    kinds = [
        kind
        for name in names
        for _, kind in inspect.getmembers(importlib.import_module(f"strategies.{name}"), inspect.isclass)
        if issubclass(kind, Algorithm) and not inspect.isabstract(kind) and "name" in vars(kind)
    ]
    return {kind.name: kind for kind in kinds}


ALGORITHMS: dict[str, type[Algorithm]] = _found()


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

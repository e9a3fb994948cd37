"""Algorithms by the name the study file uses, and which combinations make sense.

strategy: {name: fedavgm, momentum: 0.9}                   an algorithm of this package
strategy: {name: flower.FedTrimmedAvg, beta: 0.25}         one of Flower's, as it is (`strategies.flower`)
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil

import strategies
from hymate.config import parse
from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig, TopK
from strategies.base import Algorithm
from strategies.compression import demand_order, loses
from strategies.flower import PREFIX, flower_algorithm, flower_names


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
    kind = algorithm_called(strategy.name, source)
    algorithm = kind(parse(kind.Settings, strategy.settings, f"{source}: strategy"))
    demand_order(strategy.compression, source)
    _demand_fit(kind, strategy, source)
    return algorithm


def algorithm_called(name: str, source: str = "study") -> type[Algorithm]:
    """The class of that name.

    Raises:
        InputFault: there is none, or it is one of Flower's that cannot be used here.
    """
    kind = flower_algorithm(name, source) if name.startswith(PREFIX) else ALGORITHMS.get(name)
    if kind is None:
        near = difflib.get_close_matches(name, [*ALGORITHMS, *flower_names()], n=1)
        known = f"known: {', '.join(sorted(ALGORITHMS))}; any of Flower's as {PREFIX}<its name>"
        hint = f"did you mean '{near[0]}'?" if near else known
        raise InputFault(source, f"strategy.name: no algorithm is called '{name}'", hint)
    return kind


def demand_under_noise(strategy: StrategyConfig, source: str = "study") -> None:
    """Raise `InputFault` where the algorithm needs of a site what noise on gradients does not cover.

    Whoever does not say that its site's half is made for it, is refused.
    """
    algorithm = make_algorithm(strategy, source)
    half, told = algorithm.site_half(), sorted(algorithm.facts_expected())
    why = algorithm.needs_raw
    if told:
        why = f"'{told[0]}' of each site's patients"
    elif half is not None and not half.noised_only:
        why = "more of a site than its noised gradients"
    if why:
        raise InputFault(
            source,
            f"strategy {strategy.name} needs {why}, which no noise covers",
            "take fedavg, fedprox, scaffold or another algorithm under privacy.mode dp-sgd",
        )


def demand_mean(strategy: StrategyConfig, source: str = "study") -> None:
    """Raise `InputFault` where a noised mean of equally weighted updates cannot take the updates' place."""
    _demand_of_the_mean(strategy, "privacy.mode central", source)
    if strategy.weighting != "uniform":
        raise InputFault(
            source,
            f"strategy.weighting is {strategy.weighting}, and under privacy.mode central no site may count "
            "more than another",
            "set it to uniform",
        )


def demand_sum(strategy: StrategyConfig, source: str = "study") -> None:
    """Raise `InputFault` where the sum of weighted updates, each as it is, cannot take the updates' place."""
    _demand_of_the_mean(strategy, "secure_aggregation", source)
    if strategy.compression:
        raise InputFault(
            source,
            "strategy.compression: compressed updates cannot be summed under secure_aggregation",
            "leave compression out; secure_aggregation.bits says how large an update is",
        )


def _demand_of_the_mean(strategy: StrategyConfig, under: str, source: str) -> None:
    if not algorithm_called(strategy.name, source).of_the_mean:
        fitting = ", ".join(sorted(name for name, kind in ALGORITHMS.items() if kind.of_the_mean))
        raise InputFault(
            source,
            f"strategy {strategy.name} needs more than the mean of the updates, which is all there is under "
            f"{under}",
            f"take one of: {fitting}",
        )


def is_personal(strategy: StrategyConfig) -> bool:
    """Whether a site's own model differs from the shared one."""
    return bool(strategy.local_layers) or algorithm_called(strategy.name).personal


def demand_sites(strategy: StrategyConfig, sites: int, source: str = "study") -> None:
    """Raise `InputFault` where the algorithm is not defined for so few sites."""
    needed = make_algorithm(strategy, source).fewest()
    if sites < needed:
        raise InputFault(
            source,
            f"strategy: {strategy.name} with these settings needs {needed} sites, and the study has {sites}",
            "expect fewer faulty sites, add sites, or take another algorithm",
        )


def _demand_fit(kind: type[Algorithm], strategy: StrategyConfig, source: str) -> None:
    """What an algorithm cannot be combined with."""
    if kind.exact_updates and loses(strategy.compression):
        raise InputFault(
            source,
            f"strategy.compression loses digits, and {kind.name} needs updates as they are: "
            f"{kind.exact_updates}",
            "leave compression out, or take another algorithm",
        )
    if kind.dense_updates and any(isinstance(step, TopK) for step in strategy.compression):
        raise InputFault(
            source,
            f"strategy.compression: {kind.name} cannot use updates of which top_k leaves most out: "
            f"{kind.dense_updates}",
            "leave top_k out (fp16 and int8 are fine), or take another algorithm",
        )
    if kind.weights_unused and strategy.weighting not in ("stays", "uniform"):
        raise InputFault(
            source,
            f"strategy.weighting makes no difference under {kind.name}: {kind.weights_unused}",
            "leave it out, or take another algorithm",
        )

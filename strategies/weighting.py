"""How much each site counts in a round (`strategy.weighting`)."""

from __future__ import annotations

from collections.abc import Mapping

from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig


def weight_of(strategy: StrategyConfig, site: str, stays: int, positives: int | None) -> float:
    """The weight of a site that trained on `stays`, `positives` of them with the label.

    Positives too few to be named (None), and none at all, count as one.

    Raises:
        InputFault: the study gives numbers, and none for this site.
    """
    rule = strategy.weighting
    if isinstance(rule, Mapping):
        if site not in rule:
            raise InputFault(
                "strategy.weighting", f"gives no number for site '{site}'", "give one for every site"
            )
        return rule[site]
    if rule == "uniform":
        return 1.0
    return float(stays if rule == "stays" else max(positives or 0, 1))

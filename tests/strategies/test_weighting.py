"""How much each site counts, by every rule."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig
from strategies.weighting import weight_of
from tests.strategies.halves import Halves, Hospital


def strategy(weighting: Any) -> StrategyConfig:
    return StrategyConfig(weighting=weighting)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("stays", [100, 10, 7, 3]),
        ("positives", [25, 1, 1, 1]),  # below the minimum cell, none and one all count as one
        ("uniform", [1, 1, 1, 1]),
        ({"a": 2, "b": 0.5, "c": 4, "d": 1}, [2, 0.5, 4, 1]),
    ],
)
def test_every_rule(weighting: Any, expected: list[float]) -> None:
    sites = [("a", 100, 25), ("b", 10, None), ("c", 7, 0), ("d", 3, 1)]
    assert [weight_of(strategy(weighting), *site) for site in sites] == expected


def test_a_site_without_a_number_is_told_in_one_line() -> None:
    with pytest.raises(InputFault, match=r"strategy.weighting: gives no number for site 'b'; give one for"):
        weight_of(strategy({"a": 1}), "b", 10, 1)


@pytest.mark.parametrize(
    "weighting", ["size", {"a": 0}, {"a": -1}, {"a": float("nan")}, {"a": float("inf")}, 3]
)
def test_what_is_no_weighting_is_refused(weighting: Any) -> None:
    with pytest.raises(ValidationError):
        strategy(weighting)


@pytest.mark.parametrize(
    ("weighting", "share"), [("stays", 0.75), ("uniform", 0.5), ({"big": 1, "small": 4}, 0.2)]
)
def test_the_fixed_point_is_the_weighted_mean_of_the_optima(weighting: Any, share: float) -> None:
    sites = [Hospital("big", [1.0], stays=30), Hospital("small", [-1.0], stays=10)]
    study = Halves({"name": "fedavg", "weighting": weighting}, sites).run(60)
    assert study.point[0] == pytest.approx(2 * share - 1, abs=1e-6)

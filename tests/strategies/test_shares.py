"""Shares of the whole study, whoever is in a round."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.base import Update
from strategies.shares import Shares


def updates(**weights: float) -> list[Update]:
    return [Update({"w": np.zeros(1)}, weight, site) for site, weight in weights.items()]


def test_all_at_once() -> None:
    shares = Shares()
    shares.meet(updates(a=30, b=10), 2)
    assert (shares.of("a"), shares.of("b")) == (0.75, 0.25)
    assert shares.meet(updates(a=30), 2) == 1.0


def test_unknown_sites_are_as_heavy_as_the_others_until_they_come() -> None:
    """A sum made before is rescaled to what it would be had all been known."""
    shares = Shares()
    shares.meet(updates(a=30), 3)
    summed = shares.of("a") * 5.0
    assert shares.of("a") == pytest.approx(1 / 3)
    summed *= shares.meet(updates(b=10, c=20), 3)
    assert shares.of("a") == 0.5
    assert summed == pytest.approx(0.5 * 5.0)


def test_equal_weights_are_one_part_in_n_from_the_first_round_on() -> None:
    shares = Shares()
    shares.meet(updates(a=1, b=1), 5)
    assert shares.of("b") == 0.2
    assert shares.meet(updates(c=1, d=1, e=1), 5) == 1.0
    assert shares.of("a") == 0.2


def test_one_site_is_all_there_is_and_weights_stay_as_first_met() -> None:
    shares = Shares()
    shares.meet(updates(a=17), 1)
    assert shares.meet(updates(a=19), 1) == 1.0
    assert shares.of("a") == 1.0


def test_state_goes_round() -> None:
    first, second = Shares(), Shares()
    assert first.state() == {}
    first.meet(updates(a=3), 4)
    second.restore({**first.state(), "other": np.zeros(3)})
    assert second.of("a") == first.of("a")
    assert second.meet(updates(b=5), 4) == first.meet(updates(b=5), 4)
    assert second.state() == first.state()

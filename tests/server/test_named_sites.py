"""Sites called by name where there are none, or left out: told before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hymate.errors import InputFault
from server.named_sites import demand_named_sites
from server.simulation_layout import lay_out_run
from tests.in_process import small_study

GOOD = {"north": 2, "south": 1}


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ({"weighting": GOOD}, ""),
        ({"weighting": "stays"}, ""),
        ({"weighting": GOOD, "pretrain": {"weighting": "uniform"}}, ""),
        (
            {"weighting": {**GOOD, "sooth": 1}},
            "strategy.weighting: 'sooth' is no hospital; name some of: north, south",
        ),
        (
            {"weighting": {"north": 2}},
            "strategy.weighting: gives no number for site 'south'; give one for every site",
        ),
        (
            {"pretrain": {"weighting": {"north": 2}}},
            "strategy.pretrain.weighting: gives no number for site 'south'; give one for every site",
        ),
    ],
)
def test_a_weighting_names_every_site_and_no_other(strategy: dict[str, Any], words: str) -> None:
    study = small_study(strategy={"name": "fedavg", **strategy})
    if not words:
        demand_named_sites(study, ["south", "north"], "hospital")
        return
    with pytest.raises(InputFault) as fault:
        demand_named_sites(study, ["south", "north"], "hospital")
    assert str(fault.value) == words


def test_required_sites_are_sites() -> None:
    study = small_study(participation={"required": ["west"]})
    with pytest.raises(
        InputFault, match=r"participation.required: 'west' is no hospital; name some of: north"
    ):
        demand_named_sites(study, ["north"], "hospital")


def test_a_simulation_with_a_wrong_name_does_not_begin(tmp_path: Path) -> None:
    study = small_study(strategy={"weighting": {"hospital_1": 1, "hospital_3": 1}})
    assert study.simulation is not None
    with pytest.raises(InputFault, match="'hospital_3' is no hospital of this simulation"):
        lay_out_run(study, study.simulation, tmp_path / "runs" / "run")
    assert list(tmp_path.iterdir()) == []  # not even the folder of runs


def test_a_round_that_needs_more_sites_is_told_at_once() -> None:
    with pytest.raises(InputFault, match=r"participation\.quorum: needs 9 sites of 2; lower it"):
        demand_named_sites(small_study(participation={"quorum": 9}), ["a", "b"], "hospital")


def test_codes_of_more_sites_than_agree_on_them_do_not_exist() -> None:
    study = small_study(vocabulary={"min_sites": 3})
    with pytest.raises(InputFault, match=r"min_sites: keeps codes of 3 sites or more, and 2 agree"):
        demand_named_sites(study, ["a", "b"], "hospital")
    demand_named_sites(study, ["a", "b", "c"], "hospital")
    without_each = small_study(vocabulary={"min_sites": 3}, evaluation={"leave_one_site_out": True})
    with pytest.raises(InputFault, match=r"min_sites: keeps codes of 3 sites or more, and 2 agree"):
        demand_named_sites(without_each, ["a", "b", "c"], "hospital")


def test_an_algorithm_that_needs_more_sites_is_told_at_once() -> None:
    study = small_study(strategy={"name": "krum", "faulty": 1})
    with pytest.raises(InputFault, match=r"krum with these settings needs .* sites, and the study has 3"):
        demand_named_sites(study, ["a", "b", "c"], "hospital")
    demand_named_sites(study, list("abcdefg"), "hospital")

"""Noise, ledgers and sums in secret between real processes over TLS, one of which is killed amid a sum."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.ledger import Ledger, ledger_path
from client.site import load_site
from hymate.data.synthetic import generate_cohort, write_cohort
from hymate.privacy.accounting import epsilon_of
from tests.faults.federation import Federation, until

pytestmark = pytest.mark.deployment

SITES = ("hospital_1", "hospital_2", "hospital_3")
BEFORE = ["describe", "statistics", "pretrain", "tuning", "finetune"]
AFTER = ["tuning", "held_out"]
STUDY = {
    "pretrain": {"rounds": 1, "batch_size": 16},
    "finetune": {"rounds": 1, "batch_size": 16, "local_epochs": 8},
    "privacy": {
        "mode": "dp-sgd",
        "noise_multiplier": 1.0,
        "dp_statistics": True,
        "statistics_noise": 0.5,
        "evaluation_noise": 0.5,
    },
    "vocabulary": {"plausible": {"codes": {"HR": {"low": 20, "high": 200}}}, "min_count": 1},
    "secure_aggregation": {"threshold": 2},
    "participation": {"norm_factor": "inf", "quorum": 2, "deadline_minutes": 1.0, "pause_minutes": 0.1},
}
POLICY = {
    "min_cell": 1,
    "privacy": {"epsilon": 1000.0, "demand": True, "demand_statistics": True, "publish_epsilon": True},
}


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    write_cohort(generate_cohort(len(SITES), 60, seed=0), tmp_path / "data")
    made = Federation(tmp_path, sites=SITES, study=STUDY, data=tmp_path / "data")
    known = {name: (tmp_path / "keys" / f"{name}.pub").read_text().strip() for name in SITES}
    for name in SITES:
        sums = {"min_summed": 2, "demand": True, "known_sites": known}
        made.write_site(name, policy={**POLICY, "secure_aggregation": sums})
    yield made
    made.end()


def phases(one: Federation, name: str) -> list[str]:
    """What the site's ledger holds, in order; nothing where there is none yet."""
    site = load_site(one.home(name) / "site.yaml")
    if not ledger_path(site).exists():
        return []
    return [recorded.entry.phase for recorded in Ledger(site).entries()]


@pytest.mark.slow
def test_noise_and_sums_in_secret_outlive_a_site_that_is_killed(federation: Federation) -> None:
    """The last site has given its shares and charged its round when it is killed: the sum is opened without
    it, and its ledger counts a round that it never gave."""
    one, lost = federation, SITES[2]
    one.start_clients()
    server = one.start_server()
    until(lambda: one.works_on(lost, "finetune round 1"), "the last site is to mask its round", alive=server)
    until(lambda: phases(one, lost)[-1:] == ["finetune"], "the round is charged", alive=server)
    assert one.kill(lost) >= 1
    assert one.finish(server) == 0, one.told()

    assert [line["event"] for line in one.journal(lost)][-1] == "asked"  # and it never answered
    assert one.outcome("finetune", 1, lost) not in ("", "replied")
    assert phases(one, lost) == BEFORE
    report = json.loads((one.run / "report.json").read_text())
    assert report["privacy"]["sites"][lost]["rounds"] == {"pretrain": 1}
    for name in SITES[:2]:
        assert phases(one, name) == BEFORE + AFTER
        told = report["privacy"]["sites"][name]
        assert told["rounds"] == {"pretrain": 1, "finetune": 1}
        entries = [each.entry for each in Ledger(load_site(one.home(name) / "site.yaml")).entries()]
        until_told = [entry.spend for entry in entries[: len(BEFORE)]]
        assert told["spent"]["epsilon"] == pytest.approx(epsilon_of(until_told, 1e-5), abs=1e-3)
    (everyone,) = report["performance"]["sites"].values()
    assert everyone["deviation"] == pytest.approx(0.5 * 2**0.5)  # two sites' noise

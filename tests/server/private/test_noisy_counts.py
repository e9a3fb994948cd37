"""`privacy.dp_statistics`: counts and statistics with noise are charged, repeated for nothing, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from client import queries
from client.ledger import Ledger
from client.site import PrivacyPolicy, SiteConfig, load_site
from hymate.config import RangeConfig
from hymate.data.statistics import SiteStatistics
from hymate.errors import InputFault
from hymate.joining_protocol import DescribeRequest, NoisyCounts, PrepareReply, StatisticsRequest
from hymate.privacy.accounting import epsilon_of
from hymate.privacy.spend import SAMPLED_GAUSSIAN, Spend
from hymate.protocol import Action
from strategies.wire import unpack
from tests.in_process import small_study
from tests.server.private.asking import NOISE
from tests.server.studies import Study

ONE = Spend(SAMPLED_GAUSSIAN, 1.0, 4.0, 1)
LITTLE = {**NOISE, "dp_statistics": True, "statistics_noise": 0.02}


def codes_of(hospital: Path) -> dict[str, dict[str, float]]:
    """A list that somebody might agree on: here, every code there is, with one wide range."""
    import polars as pl

    table = pl.read_parquet(hospital / "metadata" / "codes.parquet")
    return {code: {"low": -50.0, "high": 500.0} for code in table["code"].to_list()}


@pytest.fixture
def site(study: Study) -> SiteConfig:
    found = load_site(study.folder / "sites" / "hospital_1" / "site.yaml")
    return found.model_copy(update={"policy": found.policy.model_copy(update={"privacy": budget(9.0)})})


def budget(epsilon: float) -> PrivacyPolicy:
    return PrivacyPolicy(epsilon=epsilon)


def asked(noise: float = 4.0) -> NoisyCounts:
    return NoisyCounts(study="small", noise_multiplier=noise, codes={"HR": RangeConfig(low=20.0, high=200.0)})


def test_an_answer_is_charged_once_and_the_same_when_asked_again(site: SiteConfig) -> None:
    task = small_study().task
    describe = DescribeRequest(task=task, noisy=asked())
    ask = StatisticsRequest(task=task, noisy=asked())
    first = queries.describe(site, describe), queries.statistics(site, ask)
    assert [each.entry.phase for each in Ledger(site).entries()] == ["describe", "statistics"]
    assert Ledger(site).spent().epsilon == pytest.approx(epsilon_of([ONE, ONE], 1e-5))
    assert (queries.describe(site, describe), queries.statistics(site, ask)) == first
    assert len(Ledger(site).entries()) == 2
    exact = queries.describe(site, DescribeRequest(task=task))
    assert exact.splits != first[0].splits
    other = queries.describe(site, DescribeRequest(task=task, noisy=asked(4.5)))
    assert other.splits != first[0].splits
    assert len(Ledger(site).entries()) == 3
    assert first[0].left_out == {}
    strict = site.model_copy(update={"policy": site.policy.model_copy(update={"min_cell": 10_000})})
    hidden = queries.describe(strict, describe).splits["train"]
    assert hidden.stays is None
    assert hidden.positives in (None, 0)  # with noise it may come to nobody, which is told


def test_beyond_the_budget_nothing_is_told(site: SiteConfig) -> None:
    task = small_study().task
    enough = epsilon_of([ONE], 1e-5) * 1.01
    poor = site.model_copy(update={"policy": site.policy.model_copy(update={"privacy": budget(enough)})})
    queries.describe(poor, DescribeRequest(task=task, noisy=asked()))
    with pytest.raises(InputFault, match="budget does not allow"):
        queries.statistics(poor, StatisticsRequest(task=task, noisy=asked()))
    assert len(Ledger(poor).entries()) == 1


def test_a_whole_study_with_noisy_counts(study: Study) -> None:
    hospital = load_site(study.folder / "sites" / "hospital_1" / "site.yaml").data
    listed = codes_of(hospital)
    left_out = sorted(listed)[0]
    del listed[left_out]
    study.run(rounds=(0, 1), privacy=LITTLE, vocabulary={"plausible": {"codes": listed}, "min_count": 1})
    site = load_site(study.folder / "sites" / "hospital_1" / "site.yaml")
    entries = [each.entry for each in Ledger(site).entries()]
    assert [(entry.phase, entry.spend.steps) for entry in entries[:2]] == [("describe", 1), ("statistics", 1)]
    assert [entry.phase for entry in entries[2:]] == ["tuning", "finetune", "tuning", "held_out"]
    vocabulary = json.loads((study.folder / "vocabulary.json").read_text())
    names = {entry["code"] for entry in vocabulary["codes"] + vocabulary["static"]}
    assert names <= set(listed)
    assert len(names) > 10
    for message in study.grid.replies:
        if message.metadata.message_type == Action.PREPARE:
            told = unpack(message.content, PrepareReply)
            assert (told.triplets, told.unknown_triplets, told.unknown_codes, told.outside) == (
                *(None, None, None, {}),
            )


def test_statistics_are_near_the_truth_where_noise_is_small(site: SiteConfig) -> None:
    task = small_study().task
    codes = {code: RangeConfig(**bounds) for code, bounds in codes_of(site.data).items()}
    little = NoisyCounts(study="small", noise_multiplier=0.001, codes=codes)
    rich = site.model_copy(update={"policy": site.policy.model_copy(update={"privacy": None})})
    noisy = SiteStatistics.from_json(
        queries.statistics(rich, StatisticsRequest(task=task, noisy=little)).statistics
    )
    exact = SiteStatistics.from_json(queries.statistics(rich, StatisticsRequest(task=task)).statistics)
    truth = {entry.code: entry for entry in exact.dynamic}
    assert noisy.subjects == exact.subjects
    for entry in noisy.dynamic:
        assert entry.count == truth[entry.code].subjects
        if truth[entry.code].numeric and -50 < truth[entry.code].mean < 500:
            spread = (truth[entry.code].m2 / truth[entry.code].numeric) ** 0.5
            assert abs(entry.mean - truth[entry.code].mean) < 2 * spread + 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"privacy": {**LITTLE}}, "lists no code"),
        ({"privacy": {"mode": "none", "dp_statistics": True}}, "is for mode dp-sgd"),
        ({"vocabulary": {"plausible": {"codes": {"HR": {"low": 3.0}}}}}, "'HR' one end of a range"),
        ({"vocabulary": {"plausible": {"codes": {"HR": {}}}, "scaling": "robust"}}, "needs quantiles"),
    ],
)
def test_what_it_needs_to_be_agreed_before(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        small_study(**{"privacy": LITTLE, **changes})

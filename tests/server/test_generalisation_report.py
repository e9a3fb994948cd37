"""Sites with one class, a handful of stays or no answer: a null with its reason, never 0.5, never NaN."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from client.evaluation import ScoredSplit, report_of
from client.site import Policy
from hymate.data.scaling import VocabularyEntry
from hymate.data.statistics import CodeStatistics, SiteStatistics
from hymate.data.vocabulary import Vocabulary
from hymate.evaluate.edges import first_edges
from hymate.joining_protocol import SiteDescription, SplitCounts
from hymate.protocol import AloneReply
from hymate.score_reports import Detail, ScoreReport
from hymate.scoring_protocol import PairedDifference
from server.comparison_phases import Matrix, Told
from server.generalisation import Generalisation
from server.leave_one_out import LeftOut
from server.report.drift import drift_section
from server.report.generalisation import generalisation_section
from server.report.performance import grid_of
from server.scoring_phases import OwnModels

DETAIL = Detail(edges=tuple(first_edges().tolist()))
GRID = grid_of(DETAIL, 0)


class Rows:
    """All of a store that a report without groups looks at."""

    subject_id = np.arange(1000)


def report(n: int, positives: int, signal: float = 1.0) -> ScoreReport:
    rng = np.random.default_rng(n + positives)
    labels = np.zeros(n)
    labels[:positives] = 1.0
    scores = 1 / (1 + np.exp(-rng.normal(signal * labels - 1)))
    found = ScoredSplit(labels, scores, Rows(), np.arange(n))  # type: ignore[arg-type]
    return report_of(found, Policy(min_cell=1), DETAIL)


FEDERATED = {
    "large": report(120, 30),
    "few": report(40, 3),
    "one_class": report(30, 0),
    "untold": ScoreReport(n=9, positives=None),
}


def section(**found: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "own": OwnModels({}, {}),
        "shared": None,
        "pooled": None,
        "matrix": None,
        "left_out": None,
        "compared": {},
    }
    told = generalisation_section(FEDERATED, Generalisation(**{**empty, **found}), GRID, {})
    return dict(json.loads(json.dumps(told, allow_nan=False)))


def alone(site: str) -> AloneReply:
    epochs = {"pretrain_epochs": 1, "finetune_epochs": 1, "best_epoch": 1, "seconds": 1.0}
    return AloneReply(site=site, held_out=FEDERATED[site], **epochs)  # type: ignore[arg-type]


def test_a_study_that_asks_for_nothing_has_the_federated_model_alone() -> None:
    told = section()
    assert list(told["models"]["kinds"]) == ["federated"]
    assert [told[key] for key in ("comparisons", "leave_one_site_out", "matrix")] == [None] * 3


def test_one_class_or_too_few_to_tell_have_no_figure_and_say_why() -> None:
    sites = section()["models"]["sites"]
    one_class, untold = sites["one_class"]["federated"], sites["untold"]["federated"]
    assert one_class["figures"]["auroc"] is None
    assert one_class["note"] == "all 30 stays are negative: nothing to tell apart"
    assert one_class["figures"]["brier"] is not None
    assert (untold["figures"], untold["n"], untold["positives"]) == (None, 9, None)
    assert untold["note"].startswith("fewer of a class than the site's minimum")


def test_means_are_over_the_sites_that_every_model_has_a_figure_for() -> None:
    told = section(own=OwnModels({"large": alone("large")}, {}))
    assert told["models"]["mean"]["sites"] == ["large"]
    for kind in ("federated", "local"):
        assert told["models"]["mean"][kind]["auroc"] == FEDERATED["large"].auroc
    assert told["models"]["gaps"]["local"].keys() == {"few", "one_class", "untold"}


def test_a_handful_of_positives_is_compared_with_nothing() -> None:
    pairs = {
        "large": PairedDifference(value=0.02, variance=1e-4),
        "few": PairedDifference(value=0.4, variance=1e-4),
        "one_class": None,
        "untold": PairedDifference(value=0.4, variance=1e-4),
    }
    told = section(compared={("federated", "local"): pairs})["comparisons"]
    (pair,) = told["pairs"]
    assert {site for site, each in pair["sites"].items() if each is None} == set(pairs) - {"large"}
    assert pair["notes"].keys() == set(pairs) - {"large"}
    assert pair["mean"]["value"] == pair["sites"]["large"]["value"] == 0.02
    assert told["tests"] == 2
    assert pair["mean"]["p_adjusted"] == pytest.approx(2 * pair["mean"]["p"])


def test_a_gap_has_its_reason() -> None:
    told = section(
        left_out=LeftOut({}, {"large": "no quorum"}),
        matrix=Matrix({"few": {"few": FEDERATED["few"]}}, {"few": "stays at home"}),
        pooled=Told(gap="subject 1 is in two data sets"),
    )
    assert told["leave_one_site_out"] == {"large": {"gap": "no quorum"}}
    assert told["matrix"]["gaps"] == {"few": "stays at home"}
    assert told["matrix"]["cells"].keys() == {"few"}
    assert set(told["models"]["gaps"]["pooled"].values()) == {"subject 1 is in two data sets"}
    assert told["models"]["gaps"]["left_out"]["large"] == "no quorum"


def statistics(*codes: CodeStatistics, subjects: int = 50) -> SiteStatistics:
    return SiteStatistics(codes, (), stays=subjects, subjects=subjects)


def described(site: str, positives: int | None) -> SiteDescription:
    counts = {
        "train": SplitCounts(stays=50, positives=positives),
        "held_out": SplitCounts(stays=20, positives=6),
    }
    return SiteDescription(site=site, dataset=site, splits=counts, left_out={}, versions={})


def test_drift_of_a_code_that_one_site_has_and_of_rates_that_may_not_be_told() -> None:
    hr = CodeStatistics("HR", "", 100, 100, 50, 50, 80.0, 99 * 100.0)
    fast = CodeStatistics("HR", "", 200, 200, 40, 40, 90.0, 199 * 100.0)
    given = CodeStatistics("GIVEN", "", 9, 0, 9, 0, 0.0, 0.0)
    entries = tuple(VocabularyEntry(code, "", 0.0, 1.0, numeric=code == "HR") for code in ("GIVEN", "HR"))
    told = drift_section(
        [described("a", 15), described("b", 5), described("c", None)],
        {"a": statistics(fast), "b": statistics(hr, given), "c": statistics(hr)},
        Vocabulary(codes=entries, static=()),
    )
    json.dumps(told, allow_nan=False)
    a = {code["code"]: code for code in told["a"]["codes"]}
    assert a["HR"]["smd"]["value"] == pytest.approx(1.0, abs=0.01)
    assert (a["HR"]["per_stay"], a["HR"]["others_per_stay"], a["HR"]["rate_ratio"]) == (4.0, 2.0, 2.0)
    assert (a["GIVEN"]["smd"], a["GIVEN"]["share"], a["GIVEN"]["others_share"]) == (None, None, 0.09)
    assert told["a"]["coverage"] == {"codes": 1, "of": 2, "share": 0.5, "missing": ["GIVEN"]}
    assert told["a"]["summary"] == {"compared": 1, "large": 1, "largest": ["HR"]}
    rate = told["a"]["label_rate"]
    assert rate["rate"]["value"] == 21 / 70
    assert rate["difference"]["value"] == pytest.approx(21 / 70 - 11 / 70)
    assert told["c"]["label_rate"]["rate"] is None
    assert "fewer positives" in told["c"]["label_rate"]["note"]

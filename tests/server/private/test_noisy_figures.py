"""`privacy.dp_statistics` covers figures of evaluation: charged first, noisy, and never told without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from pydantic import ValidationError

from client.ledger import Ledger
from hymate.privacy.accounting import epsilon_of
from hymate.protocol import Refusal, TrainReply
from hymate.scoring_protocol import CompareRequest, EvaluateReply, EvaluateRequest, RecalibrateRequest
from server.failure import StudyFailure
from strategies.wire import named, pack, unpack, unpack_weights
from tests.in_process import small_study
from tests.server.private.asking import (
    FINETUNE,
    NOISE,
    ask_again,
    asked,
    change_policy,
    charged,
    replies,
    site_of,
    told,
)
from tests.server.private.test_noisy_counts import codes_of
from tests.server.studies import Study, origin

SCORE, PREPARE = "evaluate.score", "query.prepare"


def covered(hospital: Path, noise: float = 0.02) -> dict[str, Any]:
    """Sections of a study all of whose figures are with noise, so little that they can be told."""
    return {
        "privacy": {
            **NOISE,
            "dp_statistics": True,
            "statistics_noise": 0.02,
            "evaluation_noise": noise,
        },
        "vocabulary": {"plausible": {"codes": codes_of(hospital)}, "min_count": 1},
        "evaluation": {"groups": ["GENDER"]},
    }


@pytest.fixture(scope="module")
def noised(hospitals: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = Study(hospitals, tmp_path_factory.mktemp("noised") / "run")
    made.run(rounds=(1, 2), **covered(site_of(made).data))
    return made


def reports(study: Study) -> list[EvaluateReply]:
    return [unpack(reply.content, EvaluateReply) for reply in replies(study, SCORE)]


def test_each_report_is_charged_and_says_how_noisy_it_is(noised: Study) -> None:
    entries = charged(noised)
    assert [entry.phase for entry in entries] == [
        *("describe", "statistics", "pretrain", "tuning", "finetune", "tuning", "finetune"),
        *("tuning", "held_out"),
    ]
    scored = [entry.spend for entry in entries if entry.phase in ("tuning", "held_out")]
    assert {(each.sampling_rate, each.noise_multiplier, each.steps) for each in scored} == {(1.0, 0.02, 1)}
    found = reports(noised)
    assert {each.split: each.report.deviation for each in found} == {
        "tuning": 0.02,
        "held_out": pytest.approx(0.02 * 2**0.5),  # GENDER's groups are a second table of the same people
    }
    assert all(each.received and each.received.deviation == 0.02 for each in told(noised, FINETUNE))
    assert all(each.received_error is None for each in told(noised, "train.pretrain"))
    assert noised.asked("evaluate.recalibrate") == 0


def test_figures_are_of_people_and_right_where_there_is_little_noise(noised: Study) -> None:
    import polars as pl

    held_out = [each for each in reports(noised) if each.split == "held_out"]
    labels = pl.read_parquet(site_of(noised).data / "labels" / "in_hospital_mortality")
    splits = pl.read_parquet(site_of(noised).data / "metadata" / "subject_splits.parquet")
    mine = labels.join(splits.filter(pl.col("split") == "held_out"), on="subject_id")
    assert mine["subject_id"].n_unique() in [each.report.n for each in held_out]
    assert all(each.report.groups for each in held_out)
    report = noised.report()
    for name, site in report["performance"]["sites"].items():
        assert site["deviation"] == pytest.approx(0.02 * 2**0.5)
        assert report["sites"][name]["auroc"] is not None
        assert site["figures"]["auroc"]["interval"] is not None
    assert report["performance"]["pooled"]["figures"]["calibration_slope"] is None
    page = (noised.folder / "report.html").read_text()
    assert "no figure in this report is exact" in page


def test_asked_again_it_is_the_same_and_free_and_otherwise_charged(noised: Study) -> None:
    message = asked(noised, SCORE)
    request = unpack(message.content, EvaluateRequest)
    weights = unpack_weights(message.content)
    entries = len(charged(noised))
    first, again = (unpack(ask_again(noised, message).content, EvaluateReply).report for _ in range(2))
    assert first == again
    assert len(charged(noised)) == entries
    louder = request.model_copy(update={"noise_multiplier": 3.0})
    loud = unpack(ask_again(noised, message, pack(louder, weights)).content, EvaluateReply).report
    assert len(charged(noised)) == entries + 1
    assert loud.deviation == pytest.approx(3.0 * 2**0.5)
    assert loud.cells != first.cells
    assert request.detail is not None
    pointless = request.model_copy(
        update={"detail": request.detail.model_copy(update={"threshold": None}), "run": "another"}
    )
    told = unpack(ask_again(noised, message, pack(pointless, weights)).content, EvaluateReply).report
    assert told.n == first.n  # tuning stays may name no operating point


def test_no_figure_is_told_without_noise(noised: Study) -> None:
    """Whoever asks, of the same run: the site remembers what it began with."""
    message = asked(noised, SCORE)
    weights = unpack_weights(message.content)
    exact = unpack(message.content, EvaluateRequest).model_copy(update={"noise_multiplier": None})
    slope = RecalibrateRequest(
        **unpack(message.content, EvaluateRequest).model_dump(), points={"": [(0.0, 1.0)]}
    )
    pairs = CompareRequest(
        study=exact.study, run=exact.run, task=exact.task, pairs=(("federated", "shared"),)
    )
    for action, content in (
        (SCORE, pack(exact, weights)),
        ("evaluate.recalibrate", pack(slope, weights)),
        ("evaluate.compare", pack(pairs)),
    ):
        refused = unpack(ask_again(noised, message, named(content), action).content, Refusal)
        assert "tells no figure without noise in a study with privacy.dp_statistics" in refused.reason


def test_beyond_the_budget_no_report_leaves(study: Study) -> None:
    sections = covered(site_of(study).data, noise=0.5)
    study.run(rounds=(0, 1), **sections)
    before = [entry.spend for entry in charged(study)]
    message = asked(study, SCORE)
    enough = epsilon_of(before, 1e-5) * 1.001
    change_policy(study, "hospital_1", privacy={"epsilon": enough})
    louder = unpack(message.content, EvaluateRequest).model_copy(update={"noise_multiplier": 0.4})
    reply = ask_again(study, message, pack(louder, unpack_weights(message.content)))
    assert "budget does not allow" in unpack(reply.content, Refusal).reason
    assert [entry.spend for entry in charged(study)] == before
    assert Ledger(site_of(study)).spent().epsilon <= enough


def test_a_site_may_demand_it(study: Study) -> None:
    """Of a study without, it tells nothing: not even how many stays there are."""
    change_policy(study, "hospital_1", privacy={"epsilon": 1e9, "demand_statistics": True})
    with pytest.raises(StudyFailure, match=r"ask with `privacy: \{dp_statistics: true\}`"):
        study.run(rounds=(0, 1))
    kinds = {
        str(reply.content.config_records["config"]["kind"])
        for name, reply in zip(study.grid.sent, study.grid.replies, strict=False)
        if study.grid.sites[name.metadata.dst_node_id] == "hospital_1"
    }
    assert kinds == {"Refusal"}


def test_a_site_that_demands_it_takes_part_where_it_is_given(study: Study) -> None:
    change_policy(study, "hospital_1", privacy={"epsilon": 1e9, "demand": True, "demand_statistics": True})
    study.run(rounds=(1, 1), **covered(site_of(study).data))
    assert set(study.report()["sites"]) == {"hospital_1", "hospital_2"}
    message = asked(study, PREPARE)
    from hymate.joining_protocol import PrepareRequest

    exact = unpack(message.content, PrepareRequest).model_copy(update={"noisy": None})
    assert "without noise" in unpack(ask_again(study, message, pack(exact)).content, Refusal).reason


def test_sums_in_secret_are_of_noisy_reports(study: Study) -> None:
    for name in study.sites:
        change_policy(study, name, secure_aggregation={"min_summed": 2})
    sections: dict[str, Any] = {**covered(site_of(study).data), "evaluation": {}}
    sections |= {"secure_aggregation": {"threshold": 2}, "participation": {"norm_factor": "inf"}}
    study.run(rounds=(0, 1), **sections)
    (told,) = study.report()["performance"]["sites"].values()
    assert told["deviation"] == pytest.approx(0.02 * 2**0.5)  # two sites' noise
    assert told["n"] > 0
    assert [entry.phase for entry in charged(study)][-4:] == ["tuning", "finetune", "tuning", "held_out"]


def test_what_cannot_be_noised_is_refused_when_the_study_is_read(hospitals: Path) -> None:
    sections = covered(hospitals / "data" / "hospital_1")
    with pytest.raises(ValidationError, match=r"evaluation.pooled_baseline .* privacy.dp_statistics"):
        small_study(**{**sections, "evaluation": {"pooled_baseline": True}})


@pytest.mark.parametrize("action", [FINETUNE, SCORE])
def test_figures_without_noise_never_count(action: str, study: Study) -> None:
    """Of a site that does not as the study asks."""

    def tamper(name: str, reply: Message) -> Message:
        if name != "hospital_1" or reply.metadata.message_type != action:
            return reply
        silent = {"deviation": None}
        if action == SCORE:
            scored = unpack(reply.content, EvaluateReply)
            exact = scored.model_copy(update={"report": scored.report.model_copy(update=silent)})
            return Message(pack(exact), reply_to=origin(reply))
        record = unpack(reply.content, TrainReply)
        assert record.received is not None
        told = record.model_copy(update={"received": record.received.model_copy(update=silent)})
        return Message(pack(told, unpack_weights(reply.content)), reply_to=origin(reply))

    with pytest.raises(StudyFailure, match=r"hospital_1 .*declares no noise of its figures"):
        study.run(tamper, rounds=(0, 1), **covered(site_of(study).data))

"""Whole studies with secure aggregation: the plain study's figures, dropouts, restarts, clean failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from flwr.app import Error, Message
from safetensors.numpy import load_file
from scipy.stats import chisquare

from hymate.errors import InputFault
from hymate.protocol import Declaration, MaskedReply
from server.failure import StudyFailure
from server.study import load_study
from strategies.registry import ALGORITHMS, demand_sum
from strategies.wire import ARRAYS, CONFIG, pack, unpack, unpack_weights
from tests.in_process import Tamper, lay_out, small_study
from tests.server.studies import Broken, Study, outcomes

OPEN = {"norm_factor": "inf", "quorum": 2}
SECURE: dict[str, Any] = {
    "secure_aggregation": {"threshold": 2, "clipping_range": 0.5},
    "participation": OPEN,
}
ROUNDS = (2, 1)


def _policy(folder: Path, **rules: Any) -> None:
    """All sites' policy for sums."""
    for file in folder.glob("sites/*/site.yaml"):
        site = yaml.safe_load(file.read_text())
        site["policy"]["secure_aggregation"] = rules
        file.write_text(yaml.safe_dump(site))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    lay_out(folder, 3, stays=90, min_cell=2)
    _policy(folder, min_summed=2)
    return folder


@pytest.fixture(scope="module")
def plain(three: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study(three, tmp_path_factory.mktemp("plain"))
    study.run(rounds=ROUNDS, participation=OPEN)
    return study


@pytest.fixture(scope="module")
def secure(three: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study(three, tmp_path_factory.mktemp("secure"))
    study.run(rounds=ROUNDS, **SECURE)
    return study


def _weights(study: Study, checkpoint: str) -> dict[str, Any]:
    arrays = load_file(study.folder / "checkpoints" / f"{checkpoint}.safetensors")
    return {name: array for name, array in arrays.items() if name.startswith("weights/")}


def test_a_round_s_weights_are_the_plain_study_s_to_quantisation_error(plain: Study, secure: Study) -> None:
    """Later rounds: AdamW divides by the size of a gradient, and makes of an error of 1e-7 one of 1e-5."""
    sites, clip, float32 = 3, 0.5, 1.2e-7
    bound = sites * sites * clip / 2**30
    for checkpoint, times in (("pretrain-00001", 1), ("finetune-00001", 3000)):
        expected = _weights(plain, checkpoint)
        assert expected
        for name, array in _weights(secure, checkpoint).items():
            allowed = times * (bound + float32 * np.maximum(np.abs(array), 1.0))
            assert (np.abs(array - expected[name]) <= allowed).all(), name


def test_figures_are_the_plain_study_s_for_all_sites_together(plain: Study, secure: Study) -> None:
    for phase in ("pretrain", "finetune"):
        for expected, found in zip(plain.metrics(phase), secure.metrics(phase), strict=True):
            assert found["loss"] == pytest.approx(expected["loss"], abs=1e-4)
            for name in ("forecast_error", "tuning_auroc", "tuning_log_loss"):
                if name in expected:
                    assert found[name] == pytest.approx(expected[name], abs=2e-3), name
    expected, found = plain.report()["pooled"], secure.report()["pooled"]
    assert (found["n"], found["positives"]) == (expected["n"], expected["positives"])
    for name in ("auroc", "brier", "log_loss"):
        assert found[name] == pytest.approx(expected[name], abs=0.03), name
    assert found["auroc_bounds"][0] <= found["auroc"] <= found["auroc_bounds"][1]


def test_no_figure_of_one_site_is_in_the_report(secure: Study) -> None:
    report = secure.report()
    assert list(report["sites"]) == ["all sites"]
    assert list(report["performance"]["sites"]) == ["all sites"]
    assert report["sites"]["all sites"]["auroc"] is None
    assert report["performance"]["pooled"]["figures"]["brier"] is not None
    assert report["secure_aggregation"]["threshold"] == 2
    page = (secure.folder / "report.html").read_text()
    assert "figures of all hospitals together, and of none alone" in page
    assert "how hospitals differ from each other is not known" in page


def test_what_sites_send_while_they_train_and_are_scored_is_masked_and_uniform(secure: Study) -> None:
    masked = 0
    for reply in secure.grid.replies:
        config = reply.content.config_records[CONFIG]
        kind = str(config["kind"])
        assert kind not in ("TrainReply", "EvaluateReply", "RecalibrateReply")
        if kind != MaskedReply.__name__:
            assert ARRAYS not in reply.content.array_records
            continue
        record = json.loads(str(config["json"]))
        assert {name for name, value in record.items() if value is not None} <= {"site", "seconds"}
        for array in reply.content.array_records[ARRAYS].values():
            masked += 1
            counts = np.bincount(array.numpy().view(np.uint8), minlength=256)
            assert chisquare(counts).pvalue > 1e-5
    assert _told_weights(secure) == {None}  # each site by the stays it trained on
    assert masked == 3 * (2 * sum(ROUNDS) + 2)  # rounds; last tuning and held-out figures


def _kind(reply: Message) -> str:
    return reply.metadata.message_type


def _broken_at(*stages: str) -> Tamper:
    """From round to round, the last site's answers to this kind of message are lost."""
    rounds = 0

    def tamper(name: str, reply: Message) -> Message:
        nonlocal rounds
        rounds += _kind(reply) == "query.secure_keys" and name == "hospital_1"
        this = stages[rounds - 1] if 0 < rounds <= len(stages) else ""
        if name == "hospital_3" and _kind(reply) == this:
            return Message(Error(code=2, reason="the process was killed"), reply_to=_origin(reply))
        return reply

    return tamper


def _origin(reply: Message) -> Message:
    return Message(reply.content, dst_node_id=1, message_type=reply.metadata.message_type)


def _told_weights(study: Study) -> set[float | None]:
    requests = [m for m in study.grid.sent if m.metadata.message_type == "train.finetune"]
    return {json.loads(str(m.content.config_records[CONFIG]["json"]))["secure"]["weight"] for m in requests}


def test_a_site_may_drop_out_at_any_stage(three: Path, tmp_path: Path) -> None:
    """One stage a round; with layers that stay at the sites, and FedAdam."""
    study = Study(three, tmp_path)
    stages = ("query.secure_shares", "train.pretrain", "query.secure_unmask", "train.finetune")
    strategy = {"name": "fedadam", "local_layers": ["head"]}
    lines = study.run(_broken_at(*stages), rounds=(3, 1), strategy=strategy, **SECURE)
    last = "hospital_3"
    assert outcomes(lines, "pretrain", 1).keys() == {"hospital_1", "hospital_2"}
    assert "failed" in outcomes(lines, "pretrain shares", 1)[last]
    assert "failed" in outcomes(lines, "pretrain", 2)[last]
    assert outcomes(lines, "pretrain", 3)[last] == ["asked", "replied"]
    assert "failed" in outcomes(lines, "pretrain unmask", 3)[last]
    assert "failed" in outcomes(lines, "finetune", 1)[last]
    standings = study.report()["participation"]["sites"]
    assert standings[last]["failed"] == 4
    for phase, number in (("pretrain", 3), ("finetune", 1)):
        assert len(study.metrics(phase)) == number
        assert all(np.isfinite(line["loss"]) for line in study.metrics(phase))
    assert study.report()["pooled"]["sites"] == 1


def _breaks_at(kind: str, count: int) -> Tamper:
    """The coordinator is gone at this reply of this kind."""
    left = count

    def tamper(name: str, reply: Message) -> Message:
        nonlocal left
        left -= _kind(reply) == kind
        if not left:
            raise Broken
        return reply

    return tamper


def test_a_coordinator_that_breaks_off_inside_a_round_ends_with_the_same_bits(
    three: Path, secure: Study, tmp_path: Path
) -> None:
    study = Study(three, tmp_path)
    for kind, count in (("query.secure_shares", 2), ("train.pretrain", 2), ("query.secure_unmask", 3)):
        with pytest.raises(Broken):
            study.run(_breaks_at(kind, count), rounds=ROUNDS, **SECURE)
    study.run(rounds=ROUNDS, **SECURE)
    assert study.bits() == secure.bits()


def test_below_the_threshold_a_round_ends_clean_and_nothing_is_unmasked(three: Path, tmp_path: Path) -> None:
    def tamper(name: str, reply: Message) -> Message:
        if _kind(reply) == "train.pretrain" and name != "hospital_1":
            return Message(Error(code=2, reason="the process was killed"), reply_to=_origin(reply))
        return reply

    study = Study(three, tmp_path)
    participation = {**OPEN, "attempts": 2, "retries": 0}
    with pytest.raises(StudyFailure, match=r"1 of 3 sites gave a usable reply.*nothing was unmasked"):
        study.run(tamper, rounds=ROUNDS, **{**SECURE, "participation": participation})
    assert study.asked("query.secure_unmask") == 0
    keys = [
        str(reply.content.config_records[CONFIG]["json"])
        for reply in study.grid.replies
        if _kind(reply) == "query.secure_keys"
    ]
    assert len(set(keys)) == len(keys) == 6  # new ones for the second attempt


def test_a_sum_that_a_site_has_spoilt_ends_the_study_with_its_cause(three: Path, tmp_path: Path) -> None:
    def tamper(name: str, reply: Message) -> Message:
        if _kind(reply) == "train.pretrain" and name == "hospital_1":
            arrays = unpack_weights(reply.content)
            record = unpack(reply.content, MaskedReply)
            arrays["figures"] = arrays["figures"] + np.uint64(1 << 62)
            return Message(pack(record, arrays), reply_to=_origin(reply))
        return reply

    study = Study(three, tmp_path)
    with pytest.raises(StudyFailure, match=r"pretrain round 1: the sum .* cannot be used: their weights sum"):
        study.run(tamper, rounds=ROUNDS, **SECURE)


def test_a_masked_update_with_other_noise_than_was_asked_for_does_not_count(
    three: Path, tmp_path: Path
) -> None:
    noise = Declaration(
        clipping="flat", max_grad_norm=1.0, noise_multiplier=1.0, target_epsilon=None, delta=1e-5
    )

    def tamper(name: str, reply: Message) -> Message:
        if _kind(reply) == "train.pretrain":
            record = unpack(reply.content, MaskedReply).model_copy(update={"noise": noise})
            return Message(pack(record, unpack_weights(reply.content)), reply_to=_origin(reply))
        return reply

    study = Study(three, tmp_path)
    with pytest.raises(StudyFailure, match=r"0 of 3 sites.*declares noise, and the study takes none"):
        study.run(tamper, rounds=ROUNDS, **{**SECURE, "participation": {**OPEN, "attempts": 1}})
    assert study.asked("query.secure_unmask") == 0


def test_a_site_s_own_minimum_ends_the_study_with_its_reason(three: Path, tmp_path: Path) -> None:
    study = Study(three, tmp_path)
    _policy(study.folder, min_summed=3)
    with pytest.raises(StudyFailure, match="its policy takes part in sums of 3 sites, and 2 could open"):
        study.run(rounds=ROUNDS, **SECURE)


def test_a_site_that_demands_sums_refuses_a_round_without(three: Path, tmp_path: Path) -> None:
    study = Study(three, tmp_path)
    _policy(study.folder, demand=True)
    with pytest.raises(StudyFailure, match="its policy lets no update leave unmasked"):
        study.run(rounds=ROUNDS, participation={"quorum": 2})


def test_with_noise_and_with_figures_of_each_site(three: Path, tmp_path: Path) -> None:
    study = Study(three, tmp_path)
    sections = {
        "secure_aggregation": {**SECURE["secure_aggregation"], "histograms": False},
        "privacy": {"mode": "dp-sgd", "noise_multiplier": 1.0},
        "participation": OPEN,
    }
    study.run(rounds=(0, 1), **sections)
    report = study.report()
    assert list(report["sites"]) == ["hospital_1", "hospital_2", "hospital_3"]
    page = (study.folder / "report.html").read_text()
    assert "Every update left its hospital masked" in page
    assert "of none alone" not in page
    described = {site["splits"]["train"]["stays"] for site in report["cohort"].values()}
    assert _told_weights(study) == described
    assert study.metrics("finetune")[0]["loss"] is None
    assert study.metrics("finetune")[0]["tuning_auroc"] is not None
    assert {site["rounds"]["finetune"] for site in report["privacy"]["sites"].values()} == {1}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"participation": {"norm_factor": 20.0}}, "norm_factor compares single updates"),
        ({"participation": {}}, "norm_factor compares single updates"),
        ({"evaluation": {"leave_one_site_out": True}}, "difference of two sums"),
        ({"evaluation": {"groups": ["GENDER"]}}, "evaluation.groups needs figures of each site"),
        ({"evaluation": {"local_baseline": True}}, "evaluation.local_baseline needs figures of each site"),
        (
            {"privacy": {"mode": "central", "noise_multiplier": 1.0}, "strategy": {"weighting": "uniform"}},
            "clips single updates",
        ),
        ({"secure_aggregation": {"threshold": 0.5}}, "threshold"),
        ({"secure_aggregation": {"threshold": 1}}, "a sum is of 2 sites at least"),
        ({"strategy": {"compression": ["delta", "int8"]}}, "compressed updates cannot be summed"),
        *(
            ({"strategy": {"name": name}}, f"{name} needs more than the mean of the updates")
            for name in (*sorted(n for n, kind in ALGORITHMS.items() if not kind.of_the_mean), "flower.Krum")
        ),
    ],
)
def test_what_needs_single_updates_is_refused_in_one_line(
    sections: dict[str, Any], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "study.yaml"
    strategy = sections.get("strategy", {})
    if strategy.get("name") == "fairfed":
        sections = {"strategy": {**strategy, "group": "GENDER//F"}}
    content = {"name": "s", **SECURE, "participation": {"norm_factor": float("inf")}, **sections}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(InputFault, match=words) as refused:
        load_study(file)
    assert "\n" not in str(refused.value)


def test_what_works_with_a_mean_alone_is_accepted() -> None:
    fitting = {name for name, kind in ALGORITHMS.items() if kind.of_the_mean}
    assert {"fedavg", "fedavgm", "fedprox", "fedadam", "fedyogi", "fedadagrad"} <= fitting
    for name in fitting:
        study = small_study(**SECURE, strategy={"name": name})
        demand_sum(study.strategy.of("finetune"))
    told = {**SECURE, "secure_aggregation": {"threshold": 2, "histograms": False}}
    assert not small_study(**told, evaluation={"groups": ["GENDER"], "local_baseline": True}).sums_reports

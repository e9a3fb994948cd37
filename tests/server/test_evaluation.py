"""Held-out figures of whole studies: against pooled scores, and what leaves a site on the way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml
from fairlearn.metrics import MetricFrame, false_positive_rate, true_positive_rate
from flwr.serverapp import Grid
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from client.agreed import agreed_store
from client.site import load_site
from hymate.data.cohort.config import SyntheticConfig
from hymate.data.cohort.write import Cohort, write_cohort
from hymate.evaluate.calibration import calibration_figures
from hymate.evaluate.group_members import BETWEEN
from hymate.protocol import TrainReply
from hymate.score_reports import ScoreReport
from hymate.scoring_protocol import EvaluateReply, RecalibrateReply
from hymate.train.saved_model import load_model
from hymate.train.scoring import labelled, score
from server.app import run_study
from strategies.wire import unpack
from tests.hymate.report.whole import assert_described
from tests.in_process import InProcessGrid, small_study

GROUPS = {
    "groups": ["GENDER", "ETHNICITY", {"code": "AGE", "cuts": [65]}],
    "intersections": True,
    "operating_point": {"sensitivity": 0.7},
}


@dataclass(frozen=True)
class Done:
    """A finished study and the scores that nobody saw."""

    folder: Path
    grid: InProcessGrid
    report: dict[str, Any]

    def scores(self) -> dict[str, tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
        """Per site: labels, scores and groups of the held-out stays."""
        model = load_model(self.folder / "model").model
        hash_ = self.report["vocabulary"]["hash"]
        found = {}
        for path in sorted(self.folder.glob("sites/*/site.yaml")):
            site = load_site(path)
            store = agreed_store(site, small_study().task, hash_)
            rows = labelled(store, "held_out")
            own = [
                {
                    store.header.static_codes[store.static_code[at]]: float(store.static_value[at])
                    for at in range(store.static_offset[row], store.static_offset[row + 1])
                }
                for row in rows
            ]
            groups = {
                "GENDER": np.array(["GENDER//F" if "GENDER//F" in each else "GENDER//M" for each in own]),
                "AGE": np.array(["AGE//<65" if each["AGE"] < 65 else "AGE//65+" for each in own]),
            }
            found[site.name] = store.label[rows].astype(float), score(model, store, rows), groups
        return found


def study_of(folder: Path, each: list[int], min_cell: int, min_group: int = 10) -> Done:
    config = SyntheticConfig.model_validate(
        {"hospitals": len(each), "sizes": {"distribution": "list", "each": each}, "seed": 3}
    )
    write_cohort(Cohort(config), folder / "data")
    names = sorted(path.parent.parent.name for path in folder.glob("data/*/metadata/dataset.json"))
    for name in names:
        home = folder / "sites" / name
        home.mkdir(parents=True)
        site = {"name": name, "data": str(folder / "data" / name), "policy": {"min_cell": min_cell}}
        (home / "site.yaml").write_text(yaml.safe_dump(site))
    study = small_study(evaluation={**GROUPS, "min_group": min_group, "local_baseline": True})
    grid = InProcessGrid(folder, names)
    run_study(cast(Grid, grid), study, folder, expected_sites=len(names), clock=grid.time)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in report.json")

    text = (folder / "report.json").read_text()
    return Done(folder, grid, json.loads(text, parse_constant=refuse))


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return study_of(tmp_path_factory.mktemp("exact"), [300, 240], min_cell=1, min_group=4)


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Two hospitals of some size, and one with fewer than five positives among its held-out stays."""
    return study_of(tmp_path_factory.mktemp("careful"), [500, 400, 60], min_cell=5)


@pytest.mark.parametrize("which", ["exact", "careful"])
def test_pooled_figures_are_those_of_pooled_scores(which: str, request: pytest.FixtureRequest) -> None:
    done: Done = request.getfixturevalue(which)
    performance = done.report["performance"]
    told = [name for name, site in performance["sites"].items() if site["figures"] is not None]
    every = done.scores()
    labels, scores = (np.concatenate([every[name][i] for name in told]) for i in (0, 1))
    pooled = performance["pooled"]["figures"]
    calibration = calibration_figures(labels, scores, np.ones((1, len(labels))))
    for name, truth in (
        ("auroc", roc_auc_score(labels, scores)),
        ("average_precision", average_precision_score(labels, scores)),
        ("ece", calibration["ece"][0]),
        ("tpr", (scores >= performance["operating_point"]["threshold"])[labels > 0].mean()),
    ):
        low, high = pooled[name]["bound"]
        assert low - 1e-9 <= truth <= high + 1e-9, name
    for name, truth in (
        ("brier", brier_score_loss(labels, scores)),
        ("calibration_slope", calibration["calibration_slope"][0]),
        ("calibration_intercept", calibration["calibration_intercept"][0]),
    ):
        assert pooled[name]["value"] == pytest.approx(truth, abs=1e-6), name
    for name in told:
        y, s, _ = every[name]
        site = performance["sites"][name]["figures"]
        assert site["auroc"]["value"] == pytest.approx(roc_auc_score(y, s))
        own = calibration_figures(y, s, np.ones((1, len(y))))
        assert site["calibration_slope"]["value"] == pytest.approx(own["calibration_slope"][0], abs=1e-6)
    assert done.report["pooled"]["auroc_bounds"] is not None, "older keys are still there"
    asked = [m for m in done.grid.sent if m.metadata.message_type == "evaluate.recalibrate"]
    assert len(asked) <= (3 if which == "careful" else 6) * len(
        performance["sites"]
    )  # 4 positives in a group


def test_group_figures_are_fairlearns(exact: Done) -> None:
    every = exact.scores().values()
    labels, scores = (np.concatenate([each[i] for each in every]) for i in (0, 1))
    threshold = exact.report["performance"]["operating_point"]["threshold"]
    for attribute in ("GENDER", "AGE"):
        group = np.concatenate([each[2][attribute] for each in every])
        frame = MetricFrame(
            metrics={"tpr": true_positive_rate, "fpr": false_positive_rate},
            y_true=labels,
            y_pred=(scores >= threshold).astype(float),
            sensitive_features=group,
        )
        found = exact.report["fairness"]["attributes"][attribute]
        assert sorted(found["groups"]) == sorted(np.unique(group))
        for metric in ("tpr", "fpr"):
            gap = found["gaps"][metric]
            assert gap["difference"]["value"] == pytest.approx(frame.difference()[metric], abs=1e-12)
            assert gap["difference"]["bound"] == pytest.approx([frame.difference()[metric]] * 2)
        for name, of in found["groups"].items():
            here = group == name
            assert (of["n"], of["positives"]) == (here.sum(), labels[here].sum())
            assert of["figures"]["tpr"]["value"] == pytest.approx(frame.by_group.loc[name, "tpr"])
            fit = calibration_figures(labels[here], scores[here], np.ones((1, here.sum())))
            slope = of["figures"]["calibration_slope"]
            assert slope["value"] == pytest.approx(fit["calibration_slope"][0], abs=1e-6)
            within = found["within_sites"][name]["auroc"]
            for site, (y, s, groups) in exact.scores().items():
                who = groups[attribute] == name
                gap = roc_auc_score(y[who], s[who]) - roc_auc_score(y[~who], s[~who])
                assert within["sites"][site]["value"] == pytest.approx(gap)


def test_sites_that_can_tell_little_are_named_with_the_reason(careful: Done) -> None:
    small = careful.report["performance"]["sites"]["hospital_3"]
    assert small["figures"] is None
    assert (small["n"], small["positives"]) == (12, None)
    assert careful.scores()["hospital_3"][0].sum() in (1, 2, 3, 4)
    assert "minimum" in small["note"]
    assert careful.report["performance"]["pooled"]["sites"] == 2
    effects = careful.report["performance"]["random_effects"]["auroc"]
    assert effects["sites"] == 2
    assert effects["prediction"] is None, "two sites say nothing of a third"


COUNTS = {"n", "positives", "negatives", "stays"}


def counts_in(content: Any, key: str = "") -> list[int]:
    """Every number below a key that counts people."""
    if isinstance(content, dict):
        return [found for name, value in content.items() for found in counts_in(value, name)]
    if isinstance(content, list):
        return [found for value in content for found in counts_in(value, key)]
    return [content] if key in COUNTS and content is not None else []


def test_no_record_holds_a_small_count(careful: Done) -> None:
    """Every record that left a site after training, and every difference of groups and totals in it."""
    kinds: dict[str, int] = {}
    told = []
    for reply in careful.grid.replies:
        record = reply.content.config_records["config"]
        kinds[str(record["kind"])] = kinds.get(str(record["kind"]), 0) + 1
        content = json.loads(str(record["json"]))
        counts = counts_in(content)
        assert all(count == 0 or count >= 5 for count in counts), (record["kind"], counts)
        if record["kind"] == EvaluateReply.__name__ and content["split"] == "held_out":
            told.append(unpack(reply.content, EvaluateReply).report)
    assert kinds["EvaluateReply"] >= 3
    assert kinds["RecalibrateReply"] >= 3
    assert kinds["TrainReply"] >= 3
    assert kinds["AloneReply"] == 3
    assert sum(len(report.groups) for report in told) >= 8
    assert any(report.held_back for report in told)
    for report in told:
        for attribute in ("GENDER", "ETHNICITY", "AGE"):
            check_differences(report, attribute)


def check_differences(report: ScoreReport, attribute: str) -> None:
    """The whole less the groups told, in the spans of bins on which all of them are told."""
    if report.cells is None:
        return
    groups = [
        group.cells.arrays()
        for name, group in report.groups.items()
        if name.startswith(attribute + "//") and BETWEEN not in name
    ]
    whole = report.cells.arrays()
    ends = set(whole.high.tolist())
    for cells in groups:  # a bin is an end where no cell of any table reaches across it
        ends = {end for end in ends if not ((cells.low <= end) & (cells.high > end)).any()}
    before = -1
    for end in sorted(ends):
        for kind in ("positives", "negatives"):
            rest = getattr(whole, kind)[(whole.low > before) & (whole.high <= end)].sum()
            for cells in groups:
                rest -= getattr(cells, kind)[(cells.low > before) & (cells.high <= end)].sum()
            assert rest == 0 or rest >= 5, (attribute, kind, rest)
        before = end


def test_sums_for_recalibration_are_of_groups_that_are_told(careful: Done) -> None:
    names: dict[str, set[str]] = {}
    for reply in careful.grid.replies:
        record = reply.content.config_records["config"]
        if record["kind"] == EvaluateReply.__name__:
            told = unpack(reply.content, EvaluateReply)
            if told.split == "held_out":
                names[told.site] = {"", *told.report.groups} if told.report.cells is not None else set()
    for reply in careful.grid.replies:
        if reply.content.config_records["config"]["kind"] == RecalibrateReply.__name__:
            sums = unpack(reply.content, RecalibrateReply)
            assert set(sums.sums) <= names[sums.site]


def test_the_report_is_what_its_schema_says(careful: Done) -> None:
    assert_described(careful.report)


def test_tensorboard_has_every_round_and_every_hospital(careful: Done) -> None:
    board = EventAccumulator(str(careful.folder / "tensorboard"))
    board.Reload()
    assert len(board.Scalars("finetune/loss")) == len(board.Scalars("finetune/tuning_auroc")) == 2
    told = {name: site["auroc"] for name, site in careful.report["sites"].items()}
    assert None in told.values(), "a hospital of few stays has no curve, and ends no study"
    for name, auroc in told.items():
        tag = f"evaluate/auroc/{name}"
        assert (tag in board.Tags()["scalars"]) == (auroc is not None)
        if auroc is not None:
            assert board.Scalars(tag)[-1].value == pytest.approx(auroc)


def test_training_rounds_carry_no_groups(careful: Done) -> None:
    for reply in careful.grid.replies:
        if reply.content.config_records["config"]["kind"] == TrainReply.__name__:
            received = unpack(reply.content, TrainReply).received
            assert received is None or (not received.groups and received.own_fit is None)

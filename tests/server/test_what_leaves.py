"""docs/privacy.md lists every field of every reply of a site; nothing else leaves, with noise and without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml
from flwr.app import Array, Message
from flwr.serverapp import Grid

from hymate.protocol import TrainReply
from server.app import run_study
from strategies.wire import ARRAYS, named, pack, unpack
from tests.in_process import InProcessGrid, lay_out, small_study
from tests.server.leaving import NEVER, PAGE, fields_of, listed, possible

NOISE = {"mode": "dp-sgd", "noise_multiplier": 1.0}
SUMMED: dict[str, Any] = {
    "secure_aggregation": {"threshold": 2},
    "participation": {"norm_factor": "inf"},
    "finetune": {"rounds": 1, "batch_size": 16},
}
STUDIES: dict[str, dict[str, Any]] = {
    "without noise": {
        "strategy": {"name": "fairfed", "group": "GENDER//F"},
        "evaluation": {"local_baseline": True, "cross_site_matrix": True, "groups": ["GENDER"]},
    },
    "scaffold without noise": {"strategy": {"name": "scaffold", "compression": ["delta"]}},
    "with noise": {
        "privacy": NOISE,
        "strategy": {"name": "scaffold", "local_layers": ["head"]},
        "evaluation": {"groups": ["GENDER"]},
    },
    "with noise, compressed": {
        "privacy": NOISE,
        "strategy": {"compression": ["delta", "top_k", "int8"]},
        "evaluation": {"pooled_baseline": True},
    },
    "summed": {**SUMMED, "strategy": {"name": "ditto"}},
    "summed with noise": {
        **SUMMED,
        "privacy": NOISE,
        "secure_aggregation": {"threshold": 2, "histograms": False},
    },
}
COVERED: dict[str, Any] = {
    "privacy": {**NOISE, "dp_statistics": True, "statistics_noise": 0.02, "evaluation_noise": 0.02},
    "vocabulary": {
        "plausible": {"codes": {"HR": {"low": 20, "high": 200}, "GENDER//F": {}, "GENDER//M": {}}},
        "min_count": 1,
    },
    "evaluation": {"groups": ["GENDER"]},
}
STUDIES["with noise, figures, too"] = COVERED
EXACT = {
    "TrainReply.received_error",
    "ScoreReport.auroc_variance",
    "ScoreReport.own_fit",
    "GroupReport.auroc",
}
FIGURES = {"CompareReply", "EvaluateReply", "RecalibrateReply", "ScoreReport"}


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Message]]:
    """Every reply of all sites in a whole study; each study is run once."""
    kept: dict[str, list[Message]] = {}
    folder = tmp_path_factory.mktemp("what-leaves")

    def of(name: str) -> list[Message]:
        if name not in kept:
            run = folder / name.replace(" ", "-")
            sites = lay_out(run, 2, stays=120)
            for home in (run / "sites").iterdir():
                content = yaml.safe_load((home / "site.yaml").read_text())
                content["policy"]["secure_aggregation"] = {"min_summed": 2}
                (home / "site.yaml").write_text(yaml.safe_dump(content))
            file = run / "sites" / sites[0] / "site.yaml"
            site = yaml.safe_load(file.read_text())
            site["policy"]["privacy"] = {"epsilon": 1e9, "publish_epsilon": True}
            site["policy"]["share_own_model"] = True
            file.write_text(yaml.safe_dump(site))
            grid = InProcessGrid(run, sites)
            run_study(cast(Grid, grid), small_study(**STUDIES[name]), run, expected_sites=2, clock=grid.time)
            kept[name] = grid.replies
        return kept[name]

    return of


def test_the_page_lists_every_field_there_is_and_no_other() -> None:
    assert set(listed(PAGE.read_text(encoding="utf-8"))) == possible()


@pytest.mark.parametrize("name", STUDIES)
def test_nothing_leaves_that_the_page_does_not_allow(name: str, sent: Callable[[str], list[Message]]) -> None:
    rows = listed(PAGE.read_text(encoding="utf-8"))
    allowed = {
        field
        for field, row in rows.items()
        if not (row.with_noise if "privacy" in STUDIES[name] else row.without_noise).startswith(NEVER)
    }
    for reply in sent(name):
        assert fields_of(reply) <= allowed


def test_what_the_page_allows_does_leave_in_these_studies(sent: Callable[[str], list[Message]]) -> None:
    """But for what only some studies have; so that the test above looks at more than a few fields."""
    rows = listed(PAGE.read_text(encoding="utf-8"))
    seldom = {"Declaration.target_epsilon", "PrepareReply.outside", "Refusal.site", "Refusal.reason"}
    seldom |= {"ScoreReport.held_back", "UnmaskReply.keys"}
    for noisy in (False, True):
        found = set().union(
            *(
                fields_of(reply)
                for name, settings in STUDIES.items()
                if ("privacy" in settings) == noisy
                for reply in sent(name)
            )
        )
        said = {name: row.with_noise if noisy else row.without_noise for name, row in rows.items()}
        due = {name for name, words in said.items() if not words.startswith(NEVER)} - seldom
        due -= set() if noisy else {"MaskedReply.received"}  # of the other study with sums
        assert due <= found, sorted(due - found)


def test_with_noise_on_figures_none_leaves_that_is_exact(sent: Callable[[str], list[Message]]) -> None:
    found = set().union(*map(fields_of, sent("with noise, figures, too")))
    assert {"ScoreReport.deviation", "GroupReport.deviation", "TrainReply.received"} <= found
    assert not found & EXACT
    assert not {field for field in found if field.split(".")[0] in {"RecalibrateReply", "CompareReply"}}


def test_of_a_study_that_sums_no_update_and_no_figure_of_one_site_leaves(
    sent: Callable[[str], list[Message]],
) -> None:
    summed = set().union(*map(fields_of, sent("summed")))
    assert not {field for field in summed if field.split(".")[0] in {"TrainReply", *FIGURES}}
    assert "arrays: masked" in summed
    updates = set().union(*map(fields_of, sent("summed with noise")))
    assert not {field for field in updates if field.startswith("TrainReply")}
    assert not {"arrays: weights", "arrays: beside", "metrics: num-examples"} & (summed | updates)


def test_a_field_that_is_not_on_the_page_is_noticed(sent: Callable[[str], list[Message]]) -> None:
    reply = next(reply for reply in sent("with noise") if reply.metadata.message_type == "train.pretrain")
    record = unpack(reply.content, TrainReply)
    loose = Message(pack(record.model_copy(update={"loss": 0.5}), {}), reply_to=_origin(reply))
    assert "TrainReply.loss" in fields_of(loose)
    extra = named(reply.content)
    extra.array_records[ARRAYS]["beside/rows"] = Array(np.zeros(3))
    assert "arrays: beside" in fields_of(Message(extra, reply_to=_origin(reply)))
    text = PAGE.read_text(encoding="utf-8")
    assert "TrainReply.loss" not in listed(text.replace("`TrainReply.loss`", ""))


def test_a_forecast_error_of_few_people_does_not_leave(tmp_path: Path) -> None:
    for min_cell, leaves in ((6, True), (7, False)):
        run = tmp_path / str(min_cell)
        sites = lay_out(run, 1, stays=60, min_cell=min_cell)  # six of them tuning stays
        study = small_study(finetune={"rounds": 1, "batch_size": 16})
        grid = InProcessGrid(run, sites)
        run_study(cast(Grid, grid), study, run, expected_sites=1, clock=grid.time)
        found = set().union(*map(fields_of, grid.replies))
        assert ("TrainReply.received_error" in found) == leaves
        assert "TrainReply.loss" in found


def _origin(reply: Message) -> Message:
    return Message(reply.content, dst_node_id=1, message_type=reply.metadata.message_type)

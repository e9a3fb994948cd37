"""Layers that stay at the hospitals: each ends with a whole model of its own, the study with none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from flwr.serverapp import Grid

from client.agreed import agreed_store
from client.journal import journal_path
from client.site import load_site
from hymate.errors import InputFault
from hymate.evaluate.metrics import auroc
from hymate.train.saved_model import load_model
from hymate.train.scoring import labelled, score
from server.app import run_study
from tests.in_process import InProcessGrid, lay_out, small_study


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    sites = lay_out(folder, hospitals=2)
    study = small_study(strategy={"local_layers": ["head", "norms"]})
    grid = InProcessGrid(folder, sites)
    run_study(cast(Grid, grid), study, folder, expected_sites=2, clock=grid.time)
    return folder


def test_the_study_s_model_says_that_it_is_not_whole(run: Path) -> None:
    with pytest.raises(InputFault, match=r"every hospital of study small has its own head, norms; ask one"):
        load_model(run)


def test_each_hospital_has_the_model_that_it_was_reported_with(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert report["personal"] is True
    norms = []  # they learn in pretraining, too: whichever round was best
    for path in sorted(run.glob("sites/*/site.yaml")):
        site = load_site(path)
        (folder,) = path.parent.glob("state/small/*/model")
        saved = load_model(folder)
        store = agreed_store(site, saved.task, saved.vocabulary.hash)
        rows = labelled(store, "held_out")
        measured = auroc(store.label[rows].astype(np.float64), score(saved.model, store, rows))
        assert measured == report["sites"][site.name]["auroc"]
        norms.append(saved.model.state_dict()["norm.weight"])
        assert "own model of study small lies in" in journal_path(site).read_text()
    assert not bool((norms[0] == norms[1]).all())


def test_the_page_says_whose_model_was_scored(run: Path) -> None:
    assert "each hospital ends with its own version" in (run / "report.html").read_text()

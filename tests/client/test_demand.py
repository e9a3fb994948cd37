"""A site that lets nothing leave without noise gives no round to a study that does not add any."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import yaml
from flwr.serverapp import Grid

from server.app import run_study
from server.rounds import StudyFailure
from tests.in_process import InProcessGrid, lay_out, small_study


def test_an_update_without_noise_does_not_leave(tmp_path: Path) -> None:
    sites = lay_out(tmp_path, hospitals=2)
    file = tmp_path / "sites" / sites[0] / "site.yaml"
    content = yaml.safe_load(file.read_text())
    content["policy"]["privacy"] = {"epsilon": 1.0, "demand": True}
    file.write_text(yaml.safe_dump(content))
    grid = InProcessGrid(tmp_path, sites)
    with pytest.raises(StudyFailure, match="its policy lets no update leave without noise"):
        run_study(cast(Grid, grid), small_study(), tmp_path, expected_sites=2, clock=grid.time)
    kinds = [str(reply.content.config_records["config"]["kind"]) for reply in grid.replies]
    assert kinds.count("TrainReply") == 1  # of the other site

"""A site that lets nothing leave without noise gives no round to a study that does not add any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
import yaml
from flwr.app import Message
from flwr.serverapp import Grid

from server.app import run_study
from server.failure import StudyFailure
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


def test_nor_do_the_figures_of_a_model_trained_without(tmp_path: Path) -> None:
    sites = lay_out(tmp_path, hospitals=2)
    study = small_study(evaluation={"local_baseline": True}, participation={"quorum": 1, "retries": 0})

    def demands(name: str, reply: Message) -> Message:
        """The site changes its policy after training."""
        if name == sites[0] and reply.metadata.message_type == "evaluate.score":
            file = tmp_path / "sites" / name / "site.yaml"
            content = yaml.safe_load(file.read_text())
            content["policy"]["privacy"] = {"epsilon": 1.0, "demand": True}
            file.write_text(yaml.safe_dump(content))
        return reply

    grid = InProcessGrid(tmp_path, sites, tamper=demands)
    run_study(cast(Grid, grid), study, tmp_path, expected_sites=2, clock=grid.time)
    last = [json.loads(line) for line in (tmp_path / "participation.jsonl").read_text().splitlines()]
    (line,) = [line for line in last if line["outcome"] == "refused"]
    assert (line["phase"], line["site"]) == ("alone", sites[0])
    assert "lets no update leave without noise" in line["reason"]

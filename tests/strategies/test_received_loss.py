"""Whole small studies: sites say how well the shared model does; a reply that does not is set aside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from flwr.app import Message
from flwr.serverapp import Grid

from hymate.protocol import TrainReply
from server.app import run_study
from server.failure import StudyFailure
from strategies.wire import CONFIG, pack_config, unpack
from tests.in_process import InProcessGrid, Tamper, lay_out, small_study


def carry(folder: Path, strategy: dict[str, Any], tamper: Tamper | None = None) -> InProcessGrid:
    """One round of fine-tuning at two small hospitals."""
    sites = lay_out(folder, 2, stays=40)
    grid = InProcessGrid(folder, sites, tamper=tamper)
    study = small_study(
        pretrain={"rounds": 0},
        finetune={"rounds": 1, "batch_size": 16},
        strategy=strategy,
        participation={"quorum": 1, "attempts": 1, "retries": 0},
    )
    run_study(cast(Grid, grid), study, folder, expected_sites=2, clock=grid.time)
    return grid


def test_the_loss_is_that_of_the_weights_received_and_is_needed(tmp_path: Path) -> None:
    heard: dict[str, float] = {}

    def silent(name: str, reply: Message) -> Message:
        if reply.metadata.message_type == "train.finetune":
            record = unpack(reply.content, TrainReply)
            heard[name] = record.facts["loss"]
            if name == "hospital_2":
                config = reply.content.config_records[CONFIG]
                config["json"] = pack_config(record.model_copy(update={"facts": {}}))["json"]
        return reply

    carry(tmp_path, {"name": "qfedavg"}, silent)
    assert sorted(heard) == ["hospital_1", "hospital_2"]
    assert all(0.3 < loss < 3 for loss in heard.values())  # an untrained model's, positives weighted
    lines = [json.loads(line) for line in (tmp_path / "participation.jsonl").read_text().splitlines()]
    aside = [(line["site"], line["reason"]) for line in lines if "quarantined" in line.values()]
    assert aside == [("hospital_2", "lacks the fact 'loss', which qfedavg needs")]


def test_a_round_of_too_few_sites_for_the_algorithm_ends_the_study_in_one_line(tmp_path: Path) -> None:
    """The quorum is one site, the median of one faulty site needs three."""
    with pytest.raises(StudyFailure, match=r"2 of 2 sites gave a usable reply, 3 are needed") as failure:
        carry(tmp_path, {"name": "median"})
    assert "\n" not in str(failure.value)

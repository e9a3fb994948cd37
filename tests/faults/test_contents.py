"""What a site sends, and no process or network is part of: numbers, shapes, names, another vocabulary.

In one process, through the product's own ClientApp and round loop: TLS, node keys and processes carry these
bytes as they carry any others, and would prove nothing more.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray
from rich.console import Console

from hymate.joining_protocol import PrepareReply
from hymate.protocol import TrainReply
from server.app import run_study
from server.failure import StudyFailure
from server.progress import DeploymentProgress
from server.study_view import StudyView
from strategies.wire import pack, unpack, unpack_weights
from tests.in_process import InProcessGrid, lay_out, small_study

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SITES = ["hospital_1", "hospital_2", "hospital_3"]
BAD = "hospital_2"
Weights = dict[str, NDArray[Any]]
Change = Callable[[Message], RecordDict]


def changed(change: Callable[[Weights], None]) -> Change:
    """A training reply with other weights."""

    def other(reply: Message) -> RecordDict:
        weights = {name: np.array(array) for name, array in unpack_weights(reply.content).items()}
        change(weights)
        record = unpack(reply.content, TrainReply)
        return pack(record, weights, record.stays)

    return other


def not_a_number(weights: Weights) -> None:
    next(iter(weights.values())).flat[-1] = np.nan


def another_shape(weights: Weights) -> None:
    name = next(name for name, array in weights.items() if array.ndim == 2)
    weights[name] = np.ascontiguousarray(weights[name].T)[:, :-1]


def far_away(weights: Weights) -> None:
    weights.update({name: array * np.float32(1e5) for name, array in weights.items()})


def another_vocabulary(reply: Message) -> RecordDict:
    return pack(unpack(reply.content, PrepareReply).model_copy(update={"vocabulary_hash": "f" * 64}))


FAULTS: list[tuple[str, Change, str]] = [
    ("train.pretrain", changed(not_a_number), "holds values that are not finite"),
    ("train.pretrain", changed(another_shape), "expected float32"),
    ("train.pretrain", changed(far_away), "times as long as the study's median"),
    ("query.prepare", another_vocabulary, "agreed to vocabulary ffffffffffff, the study's is"),
]


class Study:
    """Three hospitals, known by their keys; the second one sends what it should not."""

    def __init__(self, folder: Path, kind: str, change: Change, quorum: int) -> None:
        self.run = folder / "run"
        lay_out(self.run, len(SITES), stays=40)
        names = {str(10 + index): site for index, site in enumerate(SITES)}
        (self.run / "sites.json").write_text(json.dumps(names))
        self._study = small_study(
            pretrain={"rounds": 1, "batch_size": 16},
            finetune={"rounds": 1, "batch_size": 16},
            participation={"quorum": quorum},
        )

        def tamper(site: str, reply: Message) -> Message:
            if site != BAD or reply.metadata.message_type != kind:
                return reply
            origin = Message(reply.content, dst_node_id=1, message_type=kind)
            return Message(change(reply), reply_to=origin)

        self.grid = InProcessGrid(self.run, SITES, tamper=tamper)

    def carry(self) -> None:
        run_study(cast(Grid, self.grid), self._study, self.run, expected_sites=3, clock=self.grid.time)

    def quarantined(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.run / "participation.jsonl").read_text().splitlines()]
        return [line for line in lines if line["outcome"] == "quarantined"]

    def shown(self) -> str:
        """What `flower-server` shows of this run."""
        screen = io.StringIO()
        view = StudyView(SITES, {"pretrain": 1, "finetune": 1})
        DeploymentProgress(self.run, Console(file=screen, width=500), view)()
        return screen.getvalue()


@pytest.mark.parametrize(("kind", "change", "words"), FAULTS, ids=[words[:20] for _, _, words in FAULTS])
def test_it_is_quarantined_and_the_others_go_on(
    kind: str, change: Change, words: str, tmp_path: Path
) -> None:
    study = Study(tmp_path, kind, change, quorum=2)
    study.carry()
    told = study.quarantined()
    assert {line["site"] for line in told} == {BAD}
    assert all(words in line["reason"] for line in told), told
    assert f"{BAD} quarantined: {told[0]['reason']}" in study.shown()
    report = json.loads((study.run / "report.json").read_text())
    assert BAD in {trouble["site"] for trouble in report["participation"]["troubles"]}


@pytest.mark.parametrize(("kind", "change", "words"), FAULTS, ids=[words[:20] for _, _, words in FAULTS])
def test_where_it_is_needed_the_study_ends_with_the_cause(
    kind: str, change: Change, words: str, tmp_path: Path
) -> None:
    study = Study(tmp_path, kind, change, quorum=3)
    with pytest.raises(StudyFailure, match=f"2 of 3 sites gave a usable reply.*{BAD} quarantined.*{words}"):
        study.carry()
    assert not (study.run / "report.json").exists()


def test_what_is_sent_on_as_it_is_is_not_quarantined(tmp_path: Path) -> None:
    study = Study(tmp_path, "train.pretrain", lambda reply: reply.content, quorum=3)
    study.carry()
    assert study.quarantined() == []

"""Sites that fail, come late, come back, or send what cannot be used: the round's rules, and what is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.serverapp import Grid
from numpy.typing import NDArray

from hymate.errors import InputFault
from hymate.joining_protocol import SiteDescription, SplitCounts
from hymate.protocol import TrainReply
from server.app import run_study
from server.failure import StudyFailure
from server.participation import ParticipationConfig
from server.roster import Roster
from server.sampling import Draw
from server.study import StudyConfig
from strategies.wire import pack, unpack, unpack_weights
from tests.in_process import InProcessGrid, Tamper, VirtualTime, move_in, small_study

Lines = list[dict[str, Any]]
Prepare = Callable[[InProcessGrid, VirtualTime], None]
SITES = ["hospital_1", "hospital_2", "hospital_3"]


@pytest.fixture(scope="module")
def hospitals(small_hospitals: Callable[[int], Path]) -> Path:
    return small_hospitals(3)


class Study:
    """A short study of three hospitals, one of which misbehaves."""

    def __init__(self, hospitals: Path, folder: Path) -> None:
        self.folder = folder
        move_in(hospitals, folder)
        self.rounds = 1
        self.delay: Callable[[str, Message], float] = lambda site, message: 0.0
        self.time = VirtualTime()
        self.grid: InProcessGrid | None = None

    def run(
        self,
        tamper: Tamper | None = None,
        before: Callable[[InProcessGrid], None] = lambda grid: None,
        **participation: Any,
    ) -> Lines:
        """Run it; returns `participation.jsonl`."""
        study = small_study(
            pretrain={"rounds": self.rounds, "batch_size": 16},
            finetune={"rounds": 1, "batch_size": 16},
            participation=participation,
        )
        self.grid = InProcessGrid(self.folder, SITES, tamper=tamper, delay=self.delay, time=self.time)
        before(self.grid)
        self._run(study, self.grid)
        return self.lines()

    def _run(self, study: StudyConfig, grid: InProcessGrid) -> None:
        run_study(cast(Grid, grid), study, self.folder, expected_sites=3, clock=self.time)

    def lines(self) -> Lines:
        return [json.loads(line) for line in (self.folder / "participation.jsonl").read_text().splitlines()]

    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "report.json").read_text()))

    def deployed(self) -> None:
        """Node keys are known: 10, 11, 12 are the hospitals in order."""
        names = {str(10 + index): site for index, site in enumerate(SITES)}
        (self.folder / "sites.json").write_text(json.dumps(names))


@pytest.fixture
def study(hospitals: Path, tmp_path: Path) -> Study:
    return Study(hospitals, tmp_path / "run")


def story(lines: Lines, site: str, phase: str, number: int = 0) -> list[str]:
    """Outcomes of one site in one round, in order."""
    return [
        line["outcome"]
        for line in lines
        if (line["site"], line["phase"], line["round"]) == (site, phase, number)
    ]


def crash(site: str, phase: str, times: int = 10**6) -> Tamper:
    """A site whose reply to a phase is a crash, the first so many times."""
    left = [times]

    def tamper(name: str, reply: Message) -> Message:
        if name != site or not reply.metadata.message_type.endswith(phase) or left[0] <= 0:
            return reply
        left[0] -= 1
        return Message(Error(code=2, reason="out of memory\nTraceback"), reply_to=origin(reply))

    return tamper


def origin(reply: Message) -> Message:
    return Message(reply.content, dst_node_id=1, message_type=reply.metadata.message_type)


def test_who_was_asked_and_what_came_is_all_there(study: Study) -> None:
    lines = study.run()
    for site in SITES:
        assert story(lines, site, "pretrain", 1) == ["asked", "replied"]
        told = next(line for line in lines if line["site"] == site and line["outcome"] == "replied")
        assert told["attempts"] == 1
        trained = [line for line in lines if line["site"] == site and line["round"] == 1]
        assert [line.get("weight") for line in trained if line["outcome"] == "replied"] == [28, 28]
    sites = study.report()["participation"]["sites"]
    assert sorted(sites) == SITES
    assert sum(site["weight_share"] for site in sites.values()) == pytest.approx(1)
    assert study.report()["participation"]["troubles"] == []


def test_a_site_that_failed_once_is_asked_again_within_the_round(study: Study) -> None:
    lines = study.run(crash("hospital_2", "pretrain", times=1))
    told = [line for line in lines if line["site"] == "hospital_2" and line["phase"] == "pretrain"]
    assert [line["outcome"] for line in told] == ["asked", "retried", "joined", "replied"]
    assert told[1]["reason"] == "failed: out of memory"
    assert told[-1]["attempts"] == 2
    assert study.report()["participation"]["troubles"] == []


def test_without_retries_the_first_failure_counts(study: Study) -> None:
    lines = study.run(crash("hospital_2", "pretrain", times=1), retries=0, quorum=2)
    assert story(lines, "hospital_2", "pretrain", 1) == ["asked", "failed"]
    assert story(lines, "hospital_2", "finetune", 1) == ["asked", "joined", "replied"]  # it must agree again


@pytest.mark.parametrize(("quorum", "ends"), [(2, False), (0.6, False), (3, True), (1.0, True), (0.7, True)])
def test_a_round_below_quorum_ends_the_study_and_no_other(quorum: float, ends: bool, study: Study) -> None:
    tamper = crash("hospital_2", "pretrain")
    if not ends:
        study.run(tamper, quorum=quorum)
        assert set(study.report()["sites"]) == set(SITES)
        return
    with pytest.raises(
        StudyFailure, match=r"pretrain round 1: 2 of 3 sites .* 3 are needed; hospital_2 failed"
    ):
        study.run(tamper, quorum=quorum)
    lines = study.lines()
    assert story(lines, "hospital_2", "pretrain", 1).count("failed") == 3  # attempts
    assert story(lines, "hospital_1", "pretrain", 1) == ["asked", "replied"]  # it is not asked again


def test_a_required_site_is_needed_whatever_the_quorum(study: Study) -> None:
    with pytest.raises(StudyFailure, match="1 are needed, and hospital_2 among them"):
        study.run(crash("hospital_2", "pretrain"), quorum=1, required=["hospital_2"])


def test_a_round_below_quorum_pauses_and_then_goes_on(study: Study) -> None:
    lines = study.run(crash("hospital_2", "pretrain", times=4), pause_minutes=30)
    outcomes = story(lines, "hospital_2", "pretrain", 1)
    assert outcomes.count("failed") == 2
    assert outcomes[-1] == "replied"
    assert 2 * 30 * 60 <= study.time.now() < 3 * 30 * 60
    metrics = [json.loads(line) for line in (study.folder / "metrics.jsonl").read_text().splitlines()]
    pauses = [line for line in metrics if line["event"] == "paused"]
    assert [(line["phase"], line["attempt"]) for line in pauses] == [("pretrain", 1), ("pretrain", 2)]
    assert "hospital_2 failed: out of memory" in pauses[0]["cause"]


def test_what_ended_below_quorum_goes_on_from_its_checkpoint(study: Study) -> None:
    with pytest.raises(StudyFailure):
        study.run(crash("hospital_2", "finetune"))
    study.run()
    assert study.grid is not None
    asked = [message.metadata.message_type for message in study.grid.sent]
    assert asked.count("train.pretrain") == asked.count("query.statistics") == 0
    assert asked.count("train.finetune") == 3


def test_a_late_reply_is_told_and_never_used(study: Study) -> None:
    study.rounds = 2

    def delay(site: str, message: Message) -> float:
        if message.metadata.message_type != "train.pretrain":
            return 0.0
        return 80.0 if site == "hospital_2" and study.time.now() < 60 else 30.0

    study.delay = delay
    lines = study.run(quorum=2, deadline_minutes=1)
    late = next(line for line in lines if line["outcome"] == "late")
    assert (late["site"], late["phase"], late["round"]) == ("hospital_2", "pretrain", 1)
    assert late["reason"] == "no reply within 1 min"
    dropped = next(line for line in lines if line["outcome"] == "dropped")
    assert (dropped["site"], dropped["round"]) == ("hospital_2", 1)
    assert story(lines, "hospital_2", "pretrain", 2)[-1] == "replied"
    sites = study.report()["participation"]["sites"]
    assert sites["hospital_2"]["weight_share"] == pytest.approx(2 / 8)  # two of the eight updates folded


def test_a_site_failing_for_good_is_asked_now_and_then(study: Study) -> None:
    study.rounds = 9
    lines = study.run(
        crash("hospital_2", "pretrain"), quorum=2, retries=0, give_up_after=2, ask_again_every=3
    )
    outcomes = [story(lines, "hospital_2", "pretrain", number) for number in range(1, 10)]
    told = [words[-1] for words in outcomes]
    assert told == [
        "failed", "failed", "skipped", "skipped", "failed", "skipped", "skipped", "failed", "skipped",
    ]  # fmt: skip


def test_a_site_is_asked_all_the_same_where_the_quorum_needs_it() -> None:
    rules = ParticipationConfig(quorum=2, give_up_after=1)
    roster = Roster(rules, 2, {10: "north", 11: "south"})
    roster.settle(11, usable=False)
    assert roster.due([10, 11], Draw(rules, 2, "pretrain", 1).enough) == ([10, 11], [])
    one = rules.model_copy(update={"quorum": 1})
    assert roster.due([10, 11], Draw(one, 2, "pretrain", 1).enough) == ([10], [11])
    required = one.model_copy(update={"required": ("south",)})
    assert roster.due([10, 11], Draw(required, 2, "pretrain", 1).enough) == ([10, 11], [])


def test_a_site_that_comes_late_describes_itself_agrees_and_trains(study: Study) -> None:
    study.deployed()

    def connected_later(grid: InProcessGrid) -> None:
        grid.away.add(12)

    def tamper(name: str, reply: Message) -> Message:
        if reply.metadata.message_type == "train.pretrain" and study.grid is not None:
            study.grid.away.discard(12)
        return reply

    lines = study.run(tamper, connected_later, quorum=2)
    assert story(lines, "hospital_3", "statistics") == ["absent"]
    assert story(lines, "hospital_3", "pretrain", 1) == ["absent"]
    assert story(lines, "hospital_3", "finetune", 1) == ["asked", "joined", "joined", "replied"]
    report = study.report()
    assert report["sites"]["hospital_3"]["auroc"] is not None
    assert report["cohort"]["hospital_3"]["splits"]["train"]["stays"] == 28
    assert set(report["vocabulary"]["coverage"]["dynamic"]["HR"]) == {"hospital_1", "hospital_2"}


def test_a_site_whose_connection_breaks_is_asked_again_when_it_is_back(study: Study) -> None:
    study.deployed()
    study.delay = lambda site, message: 50.0 if message.metadata.message_type == "train.pretrain" else 0.0

    def connection_breaks(grid: InProcessGrid) -> None:
        study.time.at(20, lambda: grid.away.add(11))
        study.time.at(300, lambda: grid.away.discard(11))

    lines = study.run(None, connection_breaks)
    assert story(lines, "hospital_2", "pretrain", 1) == ["asked", "lost", "joined", "replied"]


def test_a_site_that_went_away_holds_nobody_up_where_enough_are_left(study: Study) -> None:
    study.deployed()
    study.delay = lambda site, message: 50.0 if message.metadata.message_type == "train.pretrain" else 0.0
    lines = study.run(None, lambda grid: study.time.at(20, lambda: grid.away.add(11)), quorum=2)
    assert story(lines, "hospital_2", "pretrain", 1) == ["asked", "lost", "failed"]
    assert story(lines, "hospital_2", "finetune", 1) == ["absent"]
    assert study.time.now() < 5 * 60  # not the hour of the deadline


def changed(reply: Message, change: Callable[[dict[str, NDArray[Any]]], None]) -> Message:
    weights = {name: np.array(array) for name, array in unpack_weights(reply.content).items()}
    change(weights)
    record = unpack(reply.content, TrainReply)
    return Message(pack(record, weights, record.stays), reply_to=origin(reply))


def first_to_nan(weights: dict[str, NDArray[Any]]) -> None:
    next(iter(weights.values())).flat[0] = np.nan


def cut_first(weights: dict[str, NDArray[Any]]) -> None:
    name = next(name for name, array in weights.items() if array.ndim == 2)
    weights[name] = weights[name][:-1]


def rename_first(weights: dict[str, NDArray[Any]]) -> None:
    weights["strange"] = weights.pop(next(iter(weights)))


def blow_up(weights: dict[str, NDArray[Any]]) -> None:
    for name, array in weights.items():
        weights[name] = array * np.float32(1e6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (first_to_nan, "holds values that are not finite"),
        (cut_first, "expected float32"),
        (rename_first, "arrays missing or unknown"),
        (blow_up, "times as long as the study's median, 20 is the limit"),
    ],
)
def test_what_cannot_be_folded_is_quarantined_for_the_round(
    change: Callable[[dict[str, NDArray[Any]]], None], words: str, study: Study
) -> None:
    def tamper(name: str, reply: Message) -> Message:
        if name == "hospital_2" and reply.metadata.message_type == "train.pretrain":
            return changed(reply, change)
        return reply

    lines = study.run(tamper, quorum=2)
    (told,) = [line for line in lines if line["outcome"] == "quarantined"]
    assert (told["site"], told["phase"], told["round"]) == ("hospital_2", "pretrain", 1)
    assert words in told["reason"]
    assert story(lines, "hospital_2", "finetune", 1)[-1] == "replied"
    share = study.report()["participation"]["sites"]["hospital_2"]["weight_share"]
    assert share == pytest.approx(1 / 5)
    trouble = study.report()["participation"]["troubles"]
    assert [(line["site"], line["outcome"]) for line in trouble] == [("hospital_2", "quarantined")]


def test_a_site_that_speaks_for_another_is_quarantined(study: Study) -> None:
    study.deployed()

    def tamper(name: str, reply: Message) -> Message:
        if name != "hospital_2" or reply.metadata.message_type != "train.pretrain":
            return reply
        record = unpack(reply.content, TrainReply).model_copy(update={"site": "hospital_1"})
        return Message(pack(record, unpack_weights(reply.content), record.stays), reply_to=origin(reply))

    lines = study.run(tamper, quorum=2)
    (told,) = [line for line in lines if line["outcome"] == "quarantined"]
    assert told["site"] == "hospital_2"
    assert told["reason"] == "calls itself 'hospital_1', but it is 'hospital_2'"


def test_names_belong_to_keys() -> None:
    def said(name: str) -> SiteDescription:
        return SiteDescription(
            site=name,
            dataset="d",
            splits={"train": SplitCounts(stays=1, positives=1)},
            left_out={},
            versions={},
        )

    deployed = Roster(ParticipationConfig(), 2, {10: "north", 11: "south"})
    with pytest.raises(ValueError, match="calls itself 'south', but its key belongs to 'north'"):
        deployed.introduced(10, said("south"))
    assert deployed.members([9, 10, 11]) == [10, 11]  # node 9 is no site of the study
    simulated = Roster(ParticipationConfig(), 2)
    simulated.introduced(10, said("north"))
    with pytest.raises(ValueError, match="two sites call themselves 'north'"):
        simulated.introduced(11, said("north"))


def test_more_sites_than_there_are_cannot_be_asked_for(study: Study) -> None:
    with pytest.raises(InputFault, match=r"participation\.quorum: needs 4 sites of 3"):
        study.run(quorum=4)

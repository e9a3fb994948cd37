"""A study that broke off goes on as if nothing had happened: the same weights, bit for bit."""

from __future__ import annotations

import json
import random
import shutil
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, cast

import pytest
from flwr.serverapp import Grid
from safetensors.numpy import load_file

from hymate.errors import InputFault
from server.app import run_study
from server.checkpoint import Checkpoint, Checkpoints
from server.failure import StudyFailure
from server.journal import Journal, cut_back
from server.resume import changed_section, only_one, refuse_unfinished, roll_back
from server.study import StudyConfig, dump_study
from tests.in_process import InProcessGrid, lay_out, small_study
from tests.server.broken_off import KILLED, Point, in_process, processes

MESSAGES = 2 * (3 + 2 + 3 + 1 + 1 + 1 + 1)
"""Two sites: describe, statistics, prepare; pretrain, fine-tune; tuning, held out, alone, compare."""


def momentum_study() -> StudyConfig:
    """Two pretraining and three fine-tuning rounds; the server and the sites both have a state to lose."""
    return small_study(
        pretrain={"rounds": 2, "batch_size": 16},
        finetune={"rounds": 3, "batch_size": 16, "patience": 9},
        strategy={"name": "fedavgm", "momentum": 0.5},
        evaluation={"local_baseline": True},
    )


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    return processes()


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("laid-out") / "run"
    return folder, lay_out(folder, 2, stays=40)


def fresh(laid_out: tuple[Path, list[str]], folder: Path) -> list[str]:
    """A run that has not begun, with its own sites over the same data."""
    shutil.copytree(laid_out[0] / "sites", folder / "sites")
    (folder / "study.yaml").write_text(dump_study(small_study()))
    return laid_out[1]


@pytest.fixture(scope="module")
def undisturbed(
    laid_out: tuple[Path, list[str]], context: ForkServerContext, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert in_process(context, folder, fresh(laid_out, folder), momentum_study(), None) == 0
    return folder


def told(folder: Path) -> dict[str, Any]:
    """The report without what a clock wrote, and without how often it had to ask."""
    report = json.loads((folder / "report.json").read_text())
    return {key: value for key, value in report.items() if key not in ("timings", "participation")}


def rounds(folder: Path) -> list[tuple[Any, ...]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["phase"], line["round"], line["loss"]) for line in lines if line["event"] == "round"]


def points() -> list[Point]:
    """Ten points over the whole study, drawn once (every run of the tests has the same), and one more.

    The last is where a site has trained fine-tuning round 3 and the coordinator does not know: the site
    must train it again from its optimiser's state after round 2.
    """
    draw = random.Random(20)
    asked: list[Point] = [("asked", number) for number in draw.sample(range(1, MESSAGES + 1), 3)]
    answered: list[Point] = [("answered", number) for number in draw.sample(range(1, MESSAGES + 1), 3)]
    flushed: list[Point] = [("flushed", number) for number in draw.sample(range(1, 120), 4)]
    return [*asked, *answered, *flushed, ("answered", 15)]


@pytest.mark.parametrize("point", points(), ids=lambda point: f"{point[0]}-{point[1]}")
def test_killed_anywhere_it_ends_with_the_same_bits(
    point: Point,
    laid_out: tuple[Path, list[str]],
    undisturbed: Path,
    context: ForkServerContext,
    tmp_path: Path,
) -> None:
    sites = fresh(laid_out, tmp_path)
    assert in_process(context, tmp_path, sites, momentum_study(), point) == KILLED
    assert not (tmp_path / "report.json").exists()
    assert in_process(context, tmp_path, sites, momentum_study(), None) == 0
    for name in ("model/weights.safetensors", "vocabulary.json", "checkpoints/best.safetensors"):
        assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert told(tmp_path) == told(undisturbed)
    assert rounds(tmp_path) == rounds(undisturbed)


def test_killed_again_and_again_it_still_arrives(
    laid_out: tuple[Path, list[str]], undisturbed: Path, context: ForkServerContext, tmp_path: Path
) -> None:
    sites = fresh(laid_out, tmp_path)
    ends = [in_process(context, tmp_path, sites, momentum_study(), ("answered", 9)) for _ in range(4)]
    assert ends[0] == ends[1] == KILLED
    assert in_process(context, tmp_path, sites, momentum_study(), None) == 0
    weights = "model/weights.safetensors"
    assert (tmp_path / weights).read_bytes() == (undisturbed / weights).read_bytes()


def test_the_state_of_the_algorithm_matters(
    laid_out: tuple[Path, list[str]], undisturbed: Path, context: ForkServerContext, tmp_path: Path
) -> None:
    """The equality above is not for free: FedAvg without momentum ends elsewhere."""
    sites = fresh(laid_out, tmp_path)
    plain = momentum_study()
    plain = plain.model_copy(update={"strategy": small_study().strategy})
    assert in_process(context, tmp_path, sites, plain, None) == 0
    weights = "model/weights.safetensors"
    assert (tmp_path / weights).read_bytes() != (undisturbed / weights).read_bytes()


@pytest.mark.parametrize("how", ["cut off", "one bit"])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(
    how: str, laid_out: tuple[Path, list[str]], undisturbed: Path, context: ForkServerContext, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    folder = tmp_path / "run"
    (folder / "report.json").unlink()
    last = folder / "checkpoints" / "finetune-00003.safetensors"
    content = bytearray(last.read_bytes())
    content[-5] ^= 1
    last.write_bytes(content[: len(content) // 2] if how == "cut off" else content)
    (folder / "study.yaml").write_text(dump_study(small_study()))

    lines = roll_back(folder, small_study())
    assert lines == [
        "finetune-00003.safetensors is damaged and was set aside; the study goes on after finetune round 2",
        "going on after finetune round 2",
    ]
    assert [line[:2] for line in rounds(folder)][-1] == ("finetune", 2)
    assert in_process(context, folder, laid_out[1], momentum_study(), None) == 0
    for name in ("model/weights.safetensors", "checkpoints/finetune-00003.safetensors"):
        arrays, expected = load_file(folder / name), load_file(undisturbed / name)
        assert {key: x.tobytes() for key, x in arrays.items()} == {
            key: x.tobytes() for key, x in expected.items()
        }
    assert told(folder) == told(undisturbed)


def test_a_site_that_lost_its_store_makes_it_again(
    laid_out: tuple[Path, list[str]], undisturbed: Path, context: ForkServerContext, tmp_path: Path
) -> None:
    sites = fresh(laid_out, tmp_path)
    assert in_process(context, tmp_path, sites, momentum_study(), ("asked", 12)) == KILLED
    shutil.rmtree(tmp_path / "sites" / sites[0] / "cache")
    assert in_process(context, tmp_path, sites, momentum_study(), None) == 0
    weights = "model/weights.safetensors"
    assert (tmp_path / weights).read_bytes() == (undisturbed / weights).read_bytes()


def test_a_finished_study_asks_nobody_anything(laid_out: tuple[Path, list[str]], undisturbed: Path) -> None:
    grid = InProcessGrid(undisturbed, laid_out[1])
    before = told(undisturbed)
    study = momentum_study()
    run_study(
        cast(Grid, grid),
        study.model_copy(update={"strategy": small_study().strategy}),  # its rounds are over: never asked
        undisturbed,
        expected_sites=2,
        clock=grid.time,
    )
    assert grid.sent == []
    assert {**told(undisturbed), "strategy": before["strategy"]} == before


def test_journals_are_cut_back_to_whole_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.metric("pretrain", "round", round=1, loss=1.0)
    journal.participation("pretrain", 1, "north", "replied")
    marks = journal.marks()
    journal.metric("pretrain", "round", round=2, loss=2.0)
    journal.close()
    Journal(tmp_path, marks).close()
    assert [json.loads(line)["round"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        1
    ]
    cut_back(tmp_path, (marks[0] - 1, 10**6))
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert len((tmp_path / "participation.jsonl").read_text().splitlines()) == 1


def test_only_the_last_rounds_are_kept_and_scraps_of_a_killed_write_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for number in range(1, 5):
        checkpoints.save(Checkpoint("pretrain", number, {"run": "r"}))
    (tmp_path / "checkpoints" / ".pretrain-00005.safetensors.ab12").write_bytes(b"half")
    again = Checkpoints(tmp_path)
    assert sorted(path.name for path in again.folder.iterdir()) == [
        "pretrain-00003.safetensors",
        "pretrain-00004.safetensors",
    ]
    assert again.last == checkpoints.last
    assert again.notes == []


def test_an_unfinished_run_is_not_set_aside_unasked(tmp_path: Path) -> None:
    refuse_unfinished(tmp_path)
    (tmp_path / "study.yaml").write_text("name: x")
    with pytest.raises(InputFault, match="has not finished; add --resume to go on with it"):
        refuse_unfinished(tmp_path)
    (tmp_path / "status.json").write_text('{"state": "failed", "cause": "x"}')
    with pytest.raises(InputFault, match="--resume"):
        refuse_unfinished(tmp_path)
    (tmp_path / "status.json").write_text('{"state": "finished", "cause": ""}')
    refuse_unfinished(tmp_path)


def test_a_run_goes_on_only_with_the_study_it_was_begun_with(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(dump_study(small_study()))
    with pytest.raises(InputFault, match="was begun with another 'finetune'"):
        roll_back(tmp_path, small_study(finetune={"rounds": 9}))
    other = small_study(participation={"quorum": 1})
    assert changed_section(small_study(), other) == ""
    source = {"synthetic": {"hospitals": 2, "stays": 60}, "min_cell": 1}
    assert changed_section(small_study(), small_study(simulation={**source, "workers": 7})) == ""
    assert changed_section(small_study(), small_study(simulation={**source, "min_cell": 2})) == "simulation"
    assert roll_back(tmp_path, other) == ["going on from the beginning"]


def test_two_processes_never_carry_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.resume.LOCK_WAIT_S", 0.3)
    with (
        only_one(tmp_path),
        pytest.raises(StudyFailure, match="another process runs the study"),
        only_one(tmp_path),
    ):
        pass
    with only_one(tmp_path):  # it was given back
        pass

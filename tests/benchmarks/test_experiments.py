"""The runner of the experiments on tiny trainings: what is run, skipped, taken up, told and collected."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.children import Child, alone_in
from benchmarks.experiments import runner as runner_module
from benchmarks.experiments.__main__ import main
from benchmarks.experiments.files import load_table
from benchmarks.experiments.places import places
from benchmarks.experiments.report import HEAD, write_section
from benchmarks.experiments.runner import Runner
from benchmarks.experiments.runs import Run, runs_of
from hymate.cli import app
from hymate.command import run_command
from hymate.errors import InputFault
from hymate.train.run import RunFolder
from tests.benchmarks.in_this_process import begin

BASE = """
name: base
model: {d_model: 8, mamba_blocks: 1, d_state: 4, attention_heads: 2, d_static: 4}
pretrain: {rounds: 1}
finetune: {rounds: 3, patience: 5, learning_rate: 2.0e-3}
evaluation: {bootstrap: 0}
"""
TABLE = """
title: A tiny table
about: Tiny.
base: base.yaml
data: {synthetic: {stays: 60}}
seeds: [0]
against: whole
rows:
  whole: {}
  half: {set: {label_share: 0.5}}
  boosting: {summary: gradient_boosting, fit_on: [train, tuning]}
  broken: {set: {label_share: 0.001}, summary: logistic_regression}
"""
Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Place:
    """A table's files, where its runs lie, and what running it said."""

    folder: Path
    said: str
    code: int

    @property
    def configs(self) -> Path:
        return self.folder / "configs"

    @property
    def results(self) -> Path:
        return self.folder / "results.md"

    def arguments(self, *more: str, out: Path | None = None) -> list[str]:
        where = ["--configs", str(self.configs), "--results", str(self.results)]
        return ["tiny", *where, "--out", str(out or self.folder / "out"), *more]

    def run(self, row: str, out: Path | None = None) -> Run:
        table = load_table("tiny", self.configs)
        target = (out or self.folder / "out").resolve()
        found = runs_of(table, places(table.data, None), (0,), target, reduced=False, configs=self.configs)
        return next(run for run in found if run.row == row)

    def copy(self, to: Path) -> Path:
        shutil.copytree(self.folder / "out", to)
        return to


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "configs").mkdir()
    (folder / "configs" / "base.yaml").write_text(BASE)
    (folder / "configs" / "tiny.yaml").write_text(TABLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with pytest.MonkeyPatch.context() as here, contextlib.redirect_stdout(io.StringIO()) as said:
            here.setattr(Child, "begin", begin)
            code = main(Place(folder, "", 0).arguments("--write"))
        yield Place(folder, said.getvalue(), code)


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(runner_module, "commit_now", lambda: "")  # git is a process too
    monkeypatch.setattr(subprocess, "Popen", refuse)


def weights(run: Run, part: str = "model") -> bytes:
    return (run.folder / part / "weights.safetensors").read_bytes()


def test_every_run_is_told_and_a_failure_ends_no_other(place: Place) -> None:
    assert place.code == 1
    assert "tiny: 4 runs, 0 finished before; 4 left" in place.said
    assert "half, seed 0: shares its pretraining" in place.said
    failed = [line for line in place.said.splitlines() if "failed:" in line]
    assert len(failed) == 1
    assert failed[0].startswith("  failed: broken, seed 0: ")
    assert "label_share 0.001: leaves no label of 42 training subjects" in failed[0]


def test_shared_pretraining_gives_what_own_pretraining_gives(place: Place, tmp_path: Path) -> None:
    whole, half = place.run("whole"), place.run("half")
    assert whole.pretraining == half.pretraining != ""
    assert weights(whole, "pretrained") == weights(half, "pretrained")
    assert json.loads((half.folder / "report.json").read_text())["pretraining"]["from"] == str(whole.folder)
    alone = tmp_path / "alone"
    command = ["-m", "hymate.cli", "train", "--config", str(half.beside("yaml")), "--out", str(alone)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    assert (alone / "model" / "weights.safetensors").read_bytes() == weights(half)


def test_the_table_holds_what_the_runs_report(place: Place) -> None:
    text = place.results.read_text()
    assert text.startswith(HEAD)
    assert "<!-- experiments: tiny -->\n## A tiny table\n" in text
    assert "    python -m benchmarks.experiments tiny --data RAW\n" in text
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in text.splitlines()}
    values = {}
    for name in ("whole", "half", "boosting"):
        report = json.loads((place.run(name).folder / "report.json").read_text())
        values[name] = report["evaluation"]["held_out"]
        assert rows[name][1:3] == [
            f"{values[name][figure]['value']:.3f}" for figure in ("auroc", "average_precision")
        ]
    difference = values["half"]["auroc"]["value"] - values["whole"]["auroc"]["value"]
    assert rows["half"][3] == f"{difference:+.3f}"
    assert rows["whole"][3:6] == ["", "", "1 + 3"]
    assert rows["broken"][1:] == ["-", "-", "-", "-", "-", "-", "0 of 1 |"]
    commit = place.run("whole").commits()
    assert len(commit) == 1
    assert f"Commit: {commit[0]}." in text


def test_what_is_finished_is_not_run_again(place: Place, nothing_runs: None) -> None:
    before = weights(place.run("whole"))
    runs = [place.run(row) for row in ("whole", "half", "boosting")]
    said: list[str] = []
    outcome = Runner("tiny", runs, 1, said.append).go()
    assert (outcome.finished, outcome.faults) == (runs, [])
    assert said == ["tiny: 3 runs, 3 finished before"]
    assert weights(place.run("whole")) == before


def test_collecting_trains_nothing_and_tells_what_is_missing(
    place: Place, tmp_path: Path, nothing_runs: None, capsys: Capture
) -> None:
    assert main(place.arguments("--collect")) == 0
    assert "| broken | - |" in capsys.readouterr().out
    assert main(place.arguments("--collect", out=tmp_path / "empty")) == 0
    assert "| whole | - |" in capsys.readouterr().out


def test_a_single_row_is_run_and_all_are_shown(place: Place, nothing_runs: None, capsys: Capture) -> None:
    assert main(place.arguments("--row", "half", "--row", "whole")) == 0
    said = capsys.readouterr().out
    assert "tiny: 2 runs, 2 finished before" in said
    assert "| boosting | 0." in said


def test_a_stopped_training_goes_on_to_the_same_weights(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(place.folder / "out" / "data", out / "data")
    run = place.run("whole", out)

    def sleep(_: float) -> None:
        if run.last_round().get("phase") == "finetune":
            raise KeyboardInterrupt
        time.sleep(0.01)

    with monkeypatch.context() as patch:
        patch.setattr(runner_module, "sleep", sleep)
        with pytest.raises(KeyboardInterrupt):
            Runner("tiny", [run], 1, print).go()
    assert run.state() == "begun"
    said: list[str] = []
    monkeypatch.setattr("benchmarks.children.TOLD_EVERY_SECONDS", 0.0)
    outcome = Runner("tiny", [run], 1, said.append).go()
    assert (outcome.faults, outcome.finished) == ([], [run])
    assert f"  whole, seed 0: goes on ({run.beside('log')})" in said
    assert any(re.search(r"whole, seed 0: (pretrain|finetune) \d/\d, \d+ s a round", line) for line in said)
    assert weights(run) == weights(place.run("whole"))


def test_a_damaged_run_is_named_in_one_line(place: Place, tmp_path: Path, nothing_runs: None) -> None:
    out = place.copy(tmp_path / "out")
    whole, half, boosting = (place.run(row, out) for row in ("whole", "half", "boosting"))
    report = whole.folder / "report.json"
    report.write_text(report.read_text()[:100])
    config = half.folder / "train.yaml"
    config.write_text(config.read_text().replace("patience: 5", "patience: 6"))
    said: list[str] = []
    outcome = Runner("tiny", [whole, half, boosting], 1, said.append).go()
    assert outcome.finished == [boosting]
    assert outcome.faults == [
        f"whole, seed 0: {report}: cannot be read; remove it, then --resume",
        f"half, seed 0: {half.folder}: was begun with finetune.patience 6, now it is 5; give another --out, "
        "or --resume without changing the configuration",
    ]
    assert all("\n" not in line for line in said)


def test_what_is_no_training_is_not_touched(place: Place, tmp_path: Path) -> None:
    run = place.run("whole", tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "notes.txt").write_text("mine")
    with pytest.raises(InputFault, match="holds no training"):
        run.state()


def test_a_run_is_named_by_what_decides_its_figures(place: Place) -> None:
    whole = place.run("whole")
    same = whole.config.model_copy(update={"name": "another", "data": (Path("elsewhere"),)})
    other = whole.config.model_copy(update={"seed": 1})
    assert Run("row", whole.place, same, whole.out).id == whole.id
    assert Run("row", whole.place, other, whole.out).id != whole.id
    assert Run("row", whole.place, other, whole.out).pretraining != whole.pretraining
    assert len({place.run(row).id for row in ("whole", "half", "boosting", "broken")}) == 4


def test_two_at_once_never_pretrain_the_same(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits for the first one's pretrained weights, and others go before it."""
    out = tmp_path / "out"
    started: list[str] = []

    class Never:
        def poll(self) -> None:
            return None

        def terminate(self) -> None:
            pass

        def wait(self, timeout: float | None = None) -> int:
            return 0

    def popen(command: list[str], **_: object) -> Never:
        started.append(command[command.index("--out") + 1])
        return Never()

    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner_module, "commit_now", lambda: "")
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(runner_module, "sleep", sleep)
    runs = [place.run(row, out) for row in ("whole", "half", "boosting")]
    with pytest.raises(KeyboardInterrupt):
        Runner("tiny", runs, 3, print).go()
    assert started == [str(runs[0].folder), str(runs[2].folder)]


def test_a_section_replaces_itself_and_keeps_the_tables_order(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    for name, text in (
        ("labels", "one"),
        ("ablations-reduced", "small"),
        ("baselines", "second"),
        ("labels", "three"),
    ):
        write_section(name, text, path)
    content = path.read_text()
    body = content.removeprefix(HEAD)
    assert body.index("second") < body.index("three") < body.index("small")
    assert "one" not in body
    assert body.count("<!-- experiments: labels -->") == 1
    path.write_text(content.replace("# Results", "# Results\n\nBy hand."))
    write_section("baselines", "fourth", path)
    assert path.read_text() == content.replace("# Results", "# Results\n\nBy hand.").replace(
        "second", "fourth"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing"], "nothing: no table of this name; there are baselines"),
        (["tiny", "--row", "all"], "--row all: no row of this name; there are whole; half; boosting; broken"),
        (["tiny", "--seeds", "0"], "--data: is missing; give the folder of PhysioNet-2012"),
    ],
)
def test_a_wrong_call_ends_in_one_line(
    arguments: list[str], told: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HYMATE_PHYSIONET2012", raising=False)
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "tiny.yaml").write_text(
        TABLE.replace("{synthetic: {stays: 60}}", "{physionet2012: protocol}")
    )
    assert main([*arguments, "--configs", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert told in said


def test_two_runners_in_one_folder_are_refused(place: Place, capsys: Capture) -> None:
    with alone_in(place.folder / "out"):
        assert main(place.arguments("--collect")) == 2
    assert "other experiments are running here" in capsys.readouterr().err


def test_the_log_is_that_of_the_command(place: Place) -> None:
    """What a person would type gives the same: nothing of a run needs the runner."""
    run = place.run("whole")
    assert RunFolder(run.folder).finished
    assert run_command(app, "hymate", ["train", "--out", str(run.folder), "--resume"]) == 0

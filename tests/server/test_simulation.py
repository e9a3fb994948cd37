"""`hymate-simulate` as a person runs it: real SuperLink, real Ray, real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from client.site import load_site
from hymate.errors import InputFault
from hymate.processes import MARK
from server.simulation_layout import lay_out_run, simulated_sites
from server.study import StudyConfig

COMMAND = [sys.executable, "-m", "server.cli"]
OURS = "HYMATE_STARTED_BY_TEST"
"""In the environment of what these tests start: other launches on the machine are none of their business."""
STUDY = {
    "name": "tiny",
    "model": {"d_model": 8, "mamba_blocks": 1, "d_state": 4, "attention_heads": 2, "d_static": 4},
    "pretrain": {"rounds": 1, "batch_size": 16},
    "finetune": {"rounds": 2, "batch_size": 16},
    "evaluation": {"local_baseline": True},
    "simulation": {
        "synthetic": {"hospitals": 4, "stays": 60},
        "min_cell": 1,
        "resources": {"cpus": 0.5},  # on two cores four workers take turns
        "workers": 2,
    },
}


def write_study(folder: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return path


def simulate(folder: Path, *words: str, **changes: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--config", str(write_study(folder, **changes)), "--out", str(folder / "run"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def started_here() -> list[psutil.Process]:
    """Processes of these tests' launches: each carries its launch's mark in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if MARK in environment and environment.get(OURS) == str(os.getpid()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(OURS, str(os.getpid()))
    before = {process.pid for process in started_here()}
    yield
    deadline = time.monotonic() + 60
    while left := [p for p in started_here() if p.pid not in before]:
        assert time.monotonic() < deadline, f"still running: {[p.cmdline()[:3] for p in left]}"
        time.sleep(0.5)


def killed_and_resumed(folder: Path) -> dict[str, Any]:
    """The report of a run that lost its command, SuperLink, ServerApp and Ray after the first round."""
    command = [*COMMAND, "--config", str(write_study(folder)), "--out", str(folder / "run")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (folder / "run" / "checkpoints" / "pretrain-00001.safetensors").is_file():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    marks = {started.environ()[MARK] for started in psutil.Process(process.pid).children()}
    process.kill()
    for started in started_here():
        with contextlib.suppress(psutil.Error):
            if started.environ()[MARK] in marks:  # and no other launch on this machine
                started.kill()
    process.wait()
    refused = simulate(folder)
    assert refused.returncode == 2
    assert "add --resume to go on with it" in refused.stderr
    done = simulate(folder, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("going on after") == 1
    return dict(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
def test_the_same_seed_gives_the_same_numbers_with_one_worker_two_or_four_or_killed(tmp_path: Path) -> None:
    reports = []
    for workers in (1, 4):
        folder = tmp_path / str(workers)
        folder.mkdir()
        done = simulate(folder, "--json", "--set", f"simulation.workers={workers}")
        assert done.returncode == 0, done.stderr
        assert f"4 hospitals, {workers} at a time (0.5 CPU each)" in done.stderr
        reports.append(json.loads(done.stdout))
        run = folder / "run"
        assert json.loads((run / "report.json").read_text()) == reports[-1]
        for name in ("study.yaml", "vocabulary.json", "metrics.jsonl", "participation.jsonl"):
            assert (run / name).stat().st_size > 0, name
        for name in ("weights.safetensors", "config.json", "vocabulary.json"):
            assert (run / "model" / name).is_file(), name
        assert list((run / "tensorboard").iterdir())
    first, second = ({k: v for k, v in report.items() if k != "timings"} for report in reports)
    assert first == second
    resumed = killed_and_resumed(tmp_path)  # with two
    assert {**resumed, "participation": {}, "timings": {}} == {**first, "participation": {}, "timings": {}}
    weights = {
        (tmp_path / run / "model" / "weights.safetensors").read_bytes() for run in ("1/run", "4/run", "run")
    }
    assert len(weights) == 1
    assert set(first["sites"]) == {f"hospital_{number}" for number in range(1, 5)}
    assert first["sites"].keys() == first["local"].keys()
    assert first["pooled"]["n"] == sum(site["n"] for site in first["sites"].values())


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
def test_a_hospital_with_broken_data_ends_the_study_with_its_cause(tmp_path: Path) -> None:
    from hymate.data.synthetic import generate_cohort, write_cohort

    write_cohort(generate_cohort(2, 60, seed=0), tmp_path / "data")
    next((tmp_path / "data" / "hospital_2" / "data").rglob("*.parquet")).write_bytes(b"not parquet")
    sites = {name: str(tmp_path / "data" / name) for name in ("hospital_1", "hospital_2")}
    done = simulate(tmp_path, simulation={"sites": sites})
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "describe: 1 of 2 sites" in done.stderr
    assert "hospital_2" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout, last
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
@pytest.mark.usefixtures("nothing_left")
def test_stopping_leaves_nothing_running(stop: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--config", str(write_study(tmp_path)), "--out", str(tmp_path / "run")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / "metrics.jsonl").is_file():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 130, "SIGKILL": -9}[stop.name]
    assert stop is signal.SIGKILL or "--resume goes on" in said.splitlines()[-1]
    assert "Traceback" not in said


def lay_out(out: Path, **simulation: Any) -> list[str]:
    study = StudyConfig.model_validate({**STUDY, "simulation": simulation})
    assert study.simulation is not None
    lay_out_run(study, study.simulation, out)
    return [site.file.parent.name for site in simulated_sites(out)]


def test_an_earlier_run_is_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for seed in (0, 1):
        assert lay_out(run, synthetic={"hospitals": 2, "stays": 20, "seed": seed}) == [
            "hospital_1",
            "hospital_2",
        ]
    (earlier,) = tmp_path.glob("run.2*")
    assert "seed: 0" in (earlier / "study.yaml").read_text().split("synthetic:")[1]
    assert "seed: 1" in (run / "study.yaml").read_text().split("synthetic:")[1]
    assert load_site(run / "sites" / "hospital_2" / "site.yaml").data.resolve() == run / "data" / "hospital_2"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([run.name, earlier.name])


def test_a_foreign_folder_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.docx").write_text("precious")
    with pytest.raises(InputFault, match="is not a run directory"):
        lay_out(run, synthetic={"hospitals": 1, "stays": 20})
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "thesis.docx"]


def test_bad_data_leaves_the_earlier_run_and_nothing_else(tmp_path: Path) -> None:
    run = tmp_path / "run"
    lay_out(run, synthetic={"hospitals": 1, "stays": 20})
    before = sorted(path.name for path in run.rglob("*"))
    for bad in ({"physionet2012": {"raw": str(tmp_path / "nowhere")}}, {"sites": {"a": str(tmp_path)}}):
        with pytest.raises(InputFault):
            lay_out(run, **bad)
    assert sorted(path.name for path in run.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file; check the path given"),
        (["--set", "finetune.epochs=3"], "key 'finetune.epochs' does not exist"),
        (["--set", "strategy.name=fedfoo"], "no algorithm is called 'fedfoo'"),
        (["--set", "simulation.resources={cpus: 4096}"], "not one hospital fits this machine's CPU cores"),
    ],
)
def test_bad_input_is_one_line_and_code_2(words: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, *words], cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())

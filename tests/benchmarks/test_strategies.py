"""The table of strategies: a run is the product's own study, and a table says what its runs came to."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.children import Child
from benchmarks.strategies import runner as runner_module
from benchmarks.strategies.__main__ import main
from benchmarks.strategies.figures import Figures
from benchmarks.strategies.files import load_tables
from benchmarks.strategies.grid import LocalGrid, virtual_time
from benchmarks.strategies.results import finished
from benchmarks.strategies.runs import Run, Table, table_of
from hymate.errors import InputFault
from server.app import run_study
from server.study import dump_study
from tests.benchmarks.in_this_process import begin

Capture = pytest.CaptureFixture[str]

STUDY = {
    "name": "tiny",
    "model": {"d_model": 8, "mamba_blocks": 1, "d_state": 4, "attention_heads": 2, "d_static": 4},
    "pretrain": {"rounds": 1, "batch_size": 16},
    "finetune": {"rounds": 2, "batch_size": 16, "learning_rate": 3e-3},
    "participation": {"quorum": 2},
    "simulation": {"min_cell": 1, "synthetic": {"hospitals": 3, "stays": 40}},
}
POPULATION = {"title": "Tiny hospitals", "about": "None.", "study": "tiny.yaml", "seeds": [0], "held_out": 20}
TABLES = {
    "rows": {
        "pooled training": {"family": "comparison", "trained": "pooled"},
        "each alone": {"family": "comparison", "trained": "alone", "beside": "FedAvg"},
        "FedAvg": {},
        "broken": {"strategy": {"name": "fedavgg"}},
        "uniform": {"family": "fair", "strategy": {"weighting": "uniform"}},
        "fp16": {"family": "compression", "candidates": [{"compression": []}, {"compression": ["fp16"]}]},
    },
    "populations": {
        "tiny": {
            **POPULATION,
            "rows": ["pooled training", "each alone", "FedAvg", "broken", "uniform", "fp16"],
        },
        "one": {**POPULATION, "study": "one.yaml", "rows": ["pooled training", "FedAvg"]},
        "poisoned": {
            **POPULATION,
            "rows": ["FedAvg"],
            "attacks": ["none", "sign flip", "label flip"],
            "attacker": "hospital_2",
        },
    },
}


@dataclass(frozen=True)
class Place:
    """A folder in which the tables were run once."""

    folder: Path
    said: str = ""
    code: int = 0

    @property
    def docs(self) -> Path:
        return self.folder / "strategies.md"

    def arguments(self, *more: str, out: Path | None = None) -> list[str]:
        where = ["--configs", str(self.folder / "configs"), "--docs", str(self.docs)]
        return [*where, "--out", str(out or self.folder / "out"), *more]

    def table(self, name: str = "tiny", out: Path | None = None) -> Table:
        configs = self.folder / "configs"
        target = (out or self.folder / "out").resolve()
        return table_of(load_tables(configs), name, None, target, configs, reduced=False)

    def run(self, row: str, name: str = "tiny", out: Path | None = None) -> Run:
        return self.table(name, out).of(row)[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("strategies")
    configs = folder / "configs"
    configs.mkdir()
    one = {**STUDY, "participation": {}, "simulation": {"synthetic": {"hospitals": 1, "stays": 60}}}
    for name, content in (("tiny", STUDY), ("one", one), ("tables", TABLES)):
        (configs / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Child, "begin", begin)
        patch.setattr(runner_module, "commit_now", lambda: "0abc123")
        patch.setattr(runner_module, "POLL_SECONDS", 0.0)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = main(Place(folder).arguments("--write"))
        yield Place(folder, said.getvalue(), code)


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(Child, "begin", refuse)


def test_every_run_is_told_and_a_wrong_row_ends_no_other(place: Place) -> None:
    assert place.code == 1
    failed = [line for line in place.said.splitlines() if "failed:" in line]
    assert len(failed) == 1
    assert failed[0].startswith(
        "  failed: broken: row 'broken': strategy.name: no algorithm is called 'fedavgg'"
    )
    assert "tiny: 5 runs, 0 finished before" in place.said
    assert "poisoned: 3 runs, 0 finished before" in place.said
    assert "  FedAvg, label flip, seed 0: AUROC 0." in place.said


def test_the_table_holds_what_the_runs_report(place: Place) -> None:
    text = place.docs.read_text().split("<!-- end of tiny -->")[0]
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in text.splitlines()}
    for row in ("pooled training", "uniform"):
        held_out = place.run(row).figures().held_out
        assert held_out is not None
        assert held_out.auroc is not None
        assert rows[row][1] == f"{held_out.auroc:.3f}"
        assert rows[row][3] == f"{min(held_out.known.values()):.3f}"
    alone = place.run("each alone").figures().alone
    assert alone is not None
    assert rows["each alone"][1] == f"{alone.auroc:.3f}"
    assert rows["broken"][-1] == "0 |"
    assert "<!-- measured: tiny -->\n### Tiny hospitals\n" in text
    assert "Seeds: 0. Commit: 0abc123." in text
    assert "    python -m benchmarks.strategies --population tiny\n" in text


def test_a_run_is_the_whole_study_that_shares_its_pretraining(place: Place, tmp_path: Path) -> None:
    """Pretraining once, then a copy of its run directory: as one study from its first phase to its last."""
    run = place.run("uniform")
    base = place.table().pretrainings[run.id]
    shutil.copytree(base.folder / "sites", tmp_path / "sites", ignore=shutil.ignore_patterns("state"))
    study = run.study.model_copy(update={"name": "strategies"})
    (tmp_path / "study.yaml").write_text(dump_study(study))
    sites = sorted(path.name for path in (tmp_path / "sites").iterdir())
    run_study(LocalGrid(tmp_path, sites), study, tmp_path, len(sites), virtual_time())  # type: ignore[arg-type]
    whole = tmp_path / "model" / "weights.safetensors"
    assert whole.read_bytes() == (run.folder / "model" / "weights.safetensors").read_bytes()
    report = json.loads((tmp_path / "report.json").read_text())
    held_out = run.figures().held_out
    assert held_out is not None
    assert report["pooled"]["auroc"] == held_out.auroc
    assert {name: site["auroc"] for name, site in report["sites"].items()} == held_out.known


def test_pooled_training_of_one_hospital_is_that_hospital_s_federation(place: Place) -> None:
    """The comparison is on one footing: same weights to begin with, same epochs, same stays, same figures."""
    pooled, federated = (place.run(row, "one").figures() for row in ("pooled training", "FedAvg"))
    assert pooled.held_out is not None
    assert federated.held_out is not None
    assert pooled.held_out.sites == federated.held_out.sites
    # Over all sites figures come from counts, between edges of another making.
    assert pooled.held_out.auroc == pytest.approx(federated.held_out.auroc, abs=0.02)
    assert pooled.rounds == federated.rounds == 2


def test_what_is_finished_is_not_run_again(place: Place, nothing_runs: None, capsys: Capture) -> None:
    before = place.docs.read_text()
    assert (
        main(place.arguments("--population", "tiny", "--row", "FedAvg", "--row", "uniform", "--write")) == 1
    )
    assert "tiny: 2 runs, 2 finished before" in capsys.readouterr().out
    assert place.docs.read_text() == before
    assert main(place.arguments("--population", "poisoned", "--collect")) == 0


def test_a_stopped_run_goes_on_to_the_same_figures(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out = tmp_path / "out"
    shutil.copytree(place.folder / "out" / "data", out / "data")
    answered: list[str] = []
    honest = LocalGrid._answer

    def stopping(grid: LocalGrid, request: Any) -> Any:
        answered.append(request.metadata.message_type)
        if answered.count("train.finetune") == 4:  # in the second round
            raise KeyboardInterrupt
        return honest(grid, request)

    arguments = place.arguments("--population", "tiny", "--row", "uniform", out=out)
    monkeypatch.setattr(LocalGrid, "_answer", stopping)
    assert main(arguments) == 130
    assert "stopped; the same command goes on" in capsys.readouterr().err
    assert place.run("uniform", out=out).state() == "begun"
    monkeypatch.setattr(LocalGrid, "_answer", honest)
    assert main(arguments) == 1  # the broken row
    assert "uniform, seed 0: goes on" in capsys.readouterr().out
    mended, through = place.run("uniform", out=out).figures(), place.run("uniform").figures()
    same = {"seconds": 0.0}
    assert mended.model_copy(update=same) == through.model_copy(update=same)


def test_a_row_s_candidate_is_chosen_on_tuning_stays(place: Place) -> None:
    """Whatever the held-out stays say."""
    table = place.table()
    first, second = table.of("fp16")
    kept = {run.id: (run.folder / "figures.json").read_text() for run in (first, second)}
    try:
        for better, worse in ((first, second), (second, first)):
            for run, criterion in ((better, 1.5), (worse, 1.4)):
                figures = Figures.model_validate_json(kept[run.id])
                changed = figures.model_copy(update={"criteria": (0.1, criterion)})
                (run.folder / "figures.json").write_text(changed.model_dump_json())
            assert table.chosen("fp16") == [better]
            assert list(finished(table, "fp16")) == [0]
    finally:
        for run in (first, second):
            (run.folder / "figures.json").write_text(kept[run.id])


def test_candidates_are_tried_under_the_first_seed_alone(place: Place) -> None:
    configs = place.folder / "configs"
    table = table_of(
        load_tables(configs), "tiny", (0, 7), (place.folder / "out").resolve(), configs, reduced=False
    )
    runner = runner_module.Runner(table, ["fp16"], 1, lambda text: None)
    runner._ended = {run.id for run in table.of("fp16") if run.seed == 0}
    (due,) = runner._due()
    assert (due.seed, due.candidate) == (7, table.chosen("fp16")[0].candidate)


def test_a_poisoned_study_is_judged_by_the_honest_sites(place: Place) -> None:
    table = place.table("poisoned")
    figures = {attack: table.of("FedAvg", attack)[0].figures() for attack in table.attacks}
    for each in figures.values():
        assert each.held_out is not None
        assert sorted(each.held_out.sites) == ["hospital_1", "hospital_3"]
    assert len({each.criteria for each in figures.values()}) == 3
    text = place.docs.read_text()
    assert "|  | no attack | sign flip | label flip | n |" in text


def test_a_run_is_named_by_what_decides_its_figures(place: Place) -> None:
    run = place.run("FedAvg")
    assert run.id == place.run("each alone").id  # one run, two rows
    others = [
        replace(run, study=run.study.model_copy(update={"seed": 1})),
        replace(run, attack="sign flip", attacker="hospital_2"),
        replace(run, place=replace(run.place, held_out=21)),
        place.run("uniform"),
        place.run("pooled training"),
    ]
    assert len({run.id, *(other.id for other in others)}) == len(others) + 1
    assert replace(run, row="another", out=Path("elsewhere")).id == run.id


def test_damage_and_wrong_words_are_one_line(place: Place, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    run = place.run("FedAvg", out=out)
    run.folder.mkdir(parents=True)
    (run.folder / "figures.json").write_text("{")
    with pytest.raises(InputFault, match="holds no figures of a run"):
        run.state()
    wrong = {
        (
            "--population",
            "none",
        ): "--population none: no population of this name; there are tiny, one",
        ("--row", "FedAvgg"): "--row FedAvgg: no row of this name",
        ("--jobs", "0"): "--jobs: 0 is no number of runs; give 1 or more",
    }
    for arguments, said in wrong.items():
        assert main(place.arguments(*arguments, out=out)) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"benchmarks.strategies: {said}")
        assert err.count("\n") == 1

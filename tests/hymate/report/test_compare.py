"""Runs compared: by hospital and by seed, with intervals, and honestly about what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hymate.cli import app
from hymate.command import run_command
from hymate.errors import InputFault
from hymate.evaluate.differences import difference, holm
from hymate.evaluate.estimates import Estimate
from hymate.report.compare import ComparedRuns, compare_runs
from tests.hymate.report.example import copied


def run_with(folder: Path, seed: int, strategy: str, shift: float) -> Path:
    """The example with its AUROCs moved, as a run of another seed or strategy."""

    def change(report: dict[str, Any]) -> None:
        report["seed"] = seed
        for name, site in report["performance"]["sites"].items():
            if site["figures"] is not None:
                auroc = site["figures"]["auroc"]
                auroc["value"] += shift
                auroc["bound"] = [end + shift for end in auroc["bound"]]
                auroc["interval"] = [end + shift for end in auroc["interval"]]
                report["sites"][name]["auroc"] += shift
        report["mean"]["federated"]["auroc"] += shift

    run = copied(folder, change)
    study = yaml.safe_load((run / "study.yaml").read_text())
    study |= {"seed": seed, "name": folder.name}
    study["strategy"]["name"] = strategy
    (run / "study.yaml").write_text(yaml.safe_dump(study))
    return run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        run_with(folder / f"{strategy}_{seed}", seed, strategy, base + wobble)
        for strategy, base in (("fedavg", 0.0), ("scaffold", 0.02))
        for seed, wobble in ((0, 0.0), (1, 0.01), (2, -0.004))
    ]


@pytest.fixture(scope="module")
def compared(folders: list[Path]) -> ComparedRuns:
    return compare_runs(folders)


def test_seeds_of_one_study_are_one_variant(compared: ComparedRuns) -> None:
    first, second = compared.variants
    assert (first.seeds, second.seeds) == ((0, 1, 2), (0, 1, 2))
    assert first.mean is not None
    assert second.mean == pytest.approx(first.mean + 0.02)
    assert first.over_seeds is not None
    assert first.over_seeds.value == pytest.approx(first.mean)
    spread = 0.007211103  # standard deviation of the wobbles
    low, high = first.over_seeds.interval
    assert high - low == pytest.approx(2 * 4.302652730 * spread / 3**0.5, rel=1e-6)  # Student's, 2 degrees
    assert compared.settings == {"strategy.name": ("fedavg", "scaffold")}


def test_differences_are_paired_where_they_can_be(compared: ComparedRuns) -> None:
    (found,) = compared.differences
    known = {site: each for site, each in found.sites.items() if each is not None}
    assert len(known) >= 3
    assert all(each.value == pytest.approx(0.02) for each in known.values())
    assert found.over_seeds is not None
    low, high = found.over_seeds.interval
    assert low == pytest.approx(0.02)
    assert high == pytest.approx(0.02), "paired by seed, nothing of the spread is left"
    assert found.mean is not None
    assert found.mean.value == pytest.approx(0.02)


def test_intervals_at_a_hospital_and_p_values_are_those_of_the_library(compared: ComparedRuns) -> None:
    (found,) = compared.differences
    p = {}
    for site, each in found.sites.items():
        ours, theirs = (of.sites[site]["auroc"] for of in reversed(compared.variants))
        if ours is None or theirs is None:
            assert each is None
            continue
        expected = difference(Estimate(ours.value, ours.bound, ours.interval), theirs)
        assert each is not None
        assert expected is not None
        assert each.interval == pytest.approx(expected.interval)
        p[site] = expected.p
    assert found.mean is not None
    p["mean"] = found.mean.p
    adjusted = holm({key: value for key, value in p.items() if value is not None})
    assert found.mean.p_adjusted == pytest.approx(adjusted["mean"])
    known = {site: each.p_adjusted for site, each in found.sites.items() if each is not None}
    assert known == pytest.approx({site: adjusted[site] for site in known})
    assert all(adjusted[site] > p[site] for site in known if p[site] < 1), "there is more than one test"
    assert f"all {len(p)} comparisons" in compared.multiplicity


def test_runs_of_one_variant_show_the_spread_over_seeds(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    names = [str(folder) for folder in folders[:3]]
    assert run_command(app, "hymate", ["report", "compare", *names, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "over seeds" in text
    assert "less" not in text
    assert "differ in their seed alone" in out.read_text()


def test_other_patients_and_other_hospitals_are_said(folders: list[Path], tmp_path: Path) -> None:
    def fewer(report: dict[str, Any]) -> None:
        report["sites"]["hospital_1"]["n"] -= 1
        del report["sites"]["hospital_2"]

    other = copied(tmp_path / "other", fewer)
    notes = " ".join(compare_runs([folders[0], other]).notes)
    assert "Other held-out stays" in notes
    assert "at hospital_1" in notes
    assert f"Not in both {folders[0]} and {other}: hospital_2." in notes


def test_what_cannot_be_compared_is_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="fewer than two"):
        compare_runs(folders[:1])
    with pytest.raises(InputFault, match="a run twice"):
        compare_runs([folders[0], folders[0]])
    task = copied(tmp_path / "task", lambda report: report.update(task="long_stay"))
    with pytest.raises(InputFault, match="is about long_stay"):
        compare_runs([folders[0], task])

    def elsewhere(report: dict[str, Any]) -> None:
        report["sites"] = {"far": report["sites"]["hospital_1"]}

    with pytest.raises(InputFault, match="no hospital in common"):
        compare_runs([folders[0], copied(tmp_path / "far", elsewhere)])


def test_the_command_prints_a_table_and_writes_a_page(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "compared.html"
    arguments = ["report", "compare", *(str(folder) for folder in folders[::3]), "--out", str(page)]
    assert run_command(app, "hymate", arguments) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "scaffold_0 less fedavg_0: mean over hospitals 0.020" in text
    assert "adjusted for all" in text
    shown = page.read_text()
    assert "strategy.name" in shown
    assert "http" not in shown
    assert run_command(app, "hymate", [*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differences"][0]["variant"] == "scaffold_0"

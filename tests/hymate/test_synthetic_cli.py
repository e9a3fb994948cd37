"""`hymate data synthetic`: file, options and --set make one configuration; faults are one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hymate.cli import app
from hymate.command import run_command
from hymate.data.cohort.config import SyntheticConfig
from hymate.data.meds import MedsDataset
from hymate.site_table import print_sites


def synthetic(*arguments: str | Path) -> int:
    return run_command(app, "hymate", ["data", "synthetic", *(str(argument) for argument in arguments)])


def test_the_file_gives_way_to_options_and_those_to_set(tmp_path: Path) -> None:
    file = tmp_path / "cohort.yaml"
    file.write_text("hospitals: 3\nstays: 30\nseed: 5\nbase: alike\nclocks: {duplicated_rows: 0.1}\n")
    arguments = ("--config", file, "--hospitals", "2", "--stays", "40", "--set", "stays=20")
    assert synthetic("--out", tmp_path / "cohort", *arguments, "--set", "clocks.shifted_share=1") == 0
    made = json.loads((tmp_path / "cohort" / "truth.json").read_text())["config"]
    asked = SyntheticConfig.model_validate(
        {
            "hospitals": 2,
            "stays": 20,
            "seed": 5,
            "base": "alike",
            "clocks": {"duplicated_rows": 0.1, "shifted_share": 1.0},
        }
    )
    assert SyntheticConfig.model_validate(made) == asked


def test_tasks_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ("--stays", "20", "--hospitals", "1", "--set", "tasks=[deterioration, long_stay]")
    assert synthetic("--out", tmp_path / "cohort", *chosen) == 0
    assert MedsDataset.open(tmp_path / "cohort/hospital_1").tasks() == ["deterioration", "long_stay"]
    assert "best reachable" not in capsys.readouterr().out  # that figure is mortality's


def test_a_long_table_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    splits = {"train": 7, "tuning": 1, "held_out": 2}
    site = {"stays": 10, "deaths": 3, "observations": 700, "median_observations": 70.5, "splits": splits}
    sites = {f"hospital_{k}": site for k in range(10, 52)}
    print_sites({"sites": sites, "total": site}, Path("cohort"), as_json=False)
    printed = capsys.readouterr().out
    assert "hospital_49" in printed
    assert "hospital_50" not in printed
    assert "2 more sites: see summary.json" in printed
    print_sites({"sites": dict(list(sites.items())[:40]), "total": site}, Path("cohort"), as_json=False)
    assert "more sites" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "covariate_shft=1"), "did you mean 'covariate_shift'?"),
        (("--set", "label_shift=9"), "key 'label_shift': Input should be less than or equal to 5 (given: 9)"),
        (("--set", "label_shift"), "is not KEY=VALUE"),
        (("--set", "disparity.group=UNIT//MEDICAL"), "needs demographics: full"),
        (("--hospitals", "1001"), "1001 is not in the range"),
        (("--hospitals", "1000", "--stays", "3000"), "3,000,000 stays in 1000 hospitals"),
        (("--config", "nowhere.yaml"), "nowhere.yaml: no such file"),
        (("--config", "broken.yaml"), "broken.yaml: key 'decoys'"),
    ],
)
def test_a_bad_configuration_is_one_line_and_code_2(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.yaml").write_text("decoys: many\n")
    assert synthetic("--out", "cohort", *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["broken.yaml"]


def test_the_help_names_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert synthetic("--help") == 0
    printed = capsys.readouterr().out
    named_otherwise = {"hospitals", "stays", "seed", "signal"}
    for key in SyntheticConfig.model_fields:
        assert (f"--{key}" if key in named_otherwise else key) in printed, key


def test_what_is_written_passes_the_check_of_data_sets(tmp_path: Path) -> None:
    switches = ("--set", "base=alike", "--set", "demographics=full", "--set", "decoys=1")
    assert synthetic("--out", tmp_path / "cohort", "--hospitals", "1", "--stays", "60", *switches) == 0
    assert run_command(app, "hymate", ["data", "check", str(tmp_path / "cohort/hospital_1")]) == 0

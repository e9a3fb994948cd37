"""Wrong task files, label sets that are there already, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hymate.cli import app
from hymate.command import run_command
from hymate.data.labelling import label_dataset
from hymate.errors import InputFault
from tests.hymate.data.labelled_by_hand import (
    MORTALITY,
    TASKS,
    by_hand,
    hospital,
    task_file,
    written,
)
from tests.hymate.data.mimic_style import (
    ADMITTED,
    HOME,
    write_meds,
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trigger": None}, "task.yaml: is no task that ACES can read (KeyError: 'trigger')"),
        ({"windows": {}}, "task.yaml: no window has the key 'label'"),
        ({"metadata": {"hymate": ["x"]}}, "metadata.hymate is no mapping"),
        ({"metadata": {"hymate": {"positive_wen": "label"}}}, "did you mean 'positive_when'?"),
        ({"metadata": {"hymate": {"name": "../up"}}}, "'../up' cannot name a label set"),
        (
            {"predicates": {"admission": {"code": "ADMIT"}, "discharge_or_death": {"code": "END"}}},
            "is no task that ACES can read",
        ),
        ({"trigger": "nothing"}, "is no task that ACES can read"),
    ],
)
def test_a_wrong_task_file(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    with pytest.raises(InputFault) as fault:
        label_dataset(meds, task_file(tmp_path, **changes))
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)
    assert not (meds / "labels").exists()


def test_nothing_triggers_the_task(tmp_path: Path) -> None:
    meds = write_meds(tmp_path / "meds", {1: [(0, "ADMIT")], 2: [(0, "ADMIT")]})
    with pytest.raises(InputFault, match=r"no event is the trigger 'admission' .*HOSPITAL_ADMISSION"):
        label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    assert not (meds / "labels").exists()


def test_no_label_comes_out(tmp_path: Path) -> None:
    meds = write_meds(tmp_path / "meds", {1: [(0, ADMITTED), (5, HOME)], 2: [(0, ADMITTED), (6, HOME)]})
    with pytest.raises(InputFault, match=r"no label came out of 2 events .*window gap wants no discharge: 2"):
        label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")


def test_a_subject_in_two_files_would_have_its_windows_cut(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    (meds / "data" / "train" / "9.parquet").write_bytes((meds / "data" / "train" / "0.parquet").read_bytes())
    with pytest.raises(InputFault, match=r"is also in data/train/0\.parquet"):
        label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")


def test_an_older_label_set_is_replaced_only_when_told(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    task = TASKS / "in_hospital_mortality_24h.yaml"
    label_dataset(meds, task)
    with pytest.raises(InputFault, match="exists already; give another --name, or --force"):
        label_dataset(meds, task)
    label_dataset(meds, task, force=True)
    folder = meds / "labels" / "in_hospital_mortality_24h"
    assert written(meds, "in_hospital_mortality_24h") == by_hand(MORTALITY, 1)
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputFault, match="holds other things than labels"):
        label_dataset(meds, task, force=True)


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    arguments = [
        "data",
        "label",
        "--task",
        str(TASKS / "in_hospital_mortality_24h.yaml"),
        "--meds",
        str(meds),
    ]
    assert run_command(app, "hymate", arguments) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert ["all", "13", "8", "(62%)"] in [line.split() for line in printed.out.splitlines()]
    assert "triggers: 18, of which without a label: 5" in printed.out
    assert "left out: 3 window gap wants no discharge" in printed.out
    assert run_command(app, "hymate", arguments) == 2
    assert "exists already" in capfd.readouterr().err
    assert run_command(app, "hymate", [*arguments, "--force", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["positive"] == 8


def test_one_class_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meds = hospital(tmp_path / "meds", {number: MORTALITY[number] for number in (1, 7, 11)})
    arguments = [
        "data",
        "label",
        "--task",
        str(TASKS / "in_hospital_mortality_24h.yaml"),
        "--meds",
        str(meds),
    ]
    assert run_command(app, "hymate", arguments) == 0
    assert "all labels are the same" in capsys.readouterr().out


def test_without_aces_one_line_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['aces'] = None; from hymate.cli import app; "
        "from hymate.command import run_command; sys.exit(run_command(app, 'hymate', sys.argv[1:]))"
    )
    arguments = ["data", "label", "--task", str(TASKS / "readmission_30d.yaml"), "--meds", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install '.[tasks]' in the project's folder" in done.stderr

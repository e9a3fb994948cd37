"""`hymate data check` as a person and a program meet it: page, JSON, exit codes, and what may be shared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hymate.cli import app
from hymate.command import run_command
from hymate.data.checks.rules import RULES, Severity
from tests.hymate.data.meds_folders import (
    BREAKS,
    DATA,
    DAY,
    FIRST_SUBJECT,
    NOON,
    SUBJECTS,
    A,
    append,
    events,
    store,
    write_good,
)

NOW = ("--now", "2021-01-01")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_good(tmp_path / "good")


def run(*arguments: str | Path) -> int:
    return run_command(app, "hymate", ["data", "check", *map(str, arguments)])


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    run(*arguments, "--json")
    printed = capsys.readouterr()
    assert printed.err == ""
    content = json.loads(printed.out)
    assert isinstance(content, dict)
    return content


def test_a_clean_data_set_ends_with_0(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, *NOW) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0] == "for the hospital only: may name subjects"
    assert "good: 6 subjects, 36 events, 6 of them without a time, in 3 files" in lines
    assert lines[-1] == "no error, no warning: fit for training"
    assert "\x1b" not in printed.out
    assert ["train", "2", "2", "1", "50%"] in [line.split() for line in lines]
    assert "HR bpm 12 6 0% 0% 80 80 90 80 90" in [" ".join(line.split()) for line in lines]


def test_warnings_end_with_0_and_errors_with_1(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    BREAKS["duplicate-row"](root)
    assert run(root, *NOW) == 0
    assert capsys.readouterr().out.endswith(
        "no error, 1 kind of warning: fit for training once you have read them\n"
    )
    BREAKS["label-null"](root)
    assert run(root, *NOW) == 1
    printed = capsys.readouterr().out
    assert printed.endswith("1 kind of error, 2 of warning: not fit for training yet\n")
    assert f"    row 0 (row group 0), subject {A}\n" in printed
    assert "error [label-null] labels are empty (null)" in printed
    assert "  do: leave rows without a label out" in printed


def test_what_cannot_be_checked_ends_with_2_and_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / DATA).write_bytes(b"no parquet")
    for folder, what in ((root, "is not a readable parquet file"), (tmp_path / "x", "no such folder")):
        assert run(folder) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert what in printed.err
        assert printed.err.count("\n") == 1


def test_further_occurrences_are_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(SUBJECTS["train"][1], NOON + (2 + day) * DAY, "HR", float("nan")) for day in range(9)]
    append(root / DATA, *rows)
    run(root, *NOW)
    printed = capsys.readouterr().out
    assert f"  {DATA}: 9 times\n" in printed
    assert printed.count("HR = NaN") == 3
    assert "    and 6 more\n" in printed


def test_files_beyond_the_third_are_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 6):
        rows = events((FIRST_SUBJECT + 100 + number, NOON, "HR", float("nan")))
        store(root / f"data/extra/{number}.parquet", rows)
    run(root, *NOW)
    assert "  and in 2 more files (--json lists all)\n" in capsys.readouterr().out
    content = as_json(capsys, root, *NOW)
    assert len([found for found in content["errors"] if found["check"] == "non-finite"]) == 5


def test_json_holds_what_the_page_holds(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    BREAKS["non-finite"](root)
    content = as_json(capsys, root, *NOW)
    assert list(content) == ["note", "errors", "warnings", "summary"]
    assert content["note"] == "for the hospital only: may name subjects"
    assert content["errors"] == [
        {
            "check": "non-finite",
            "severity": "error",
            "file": DATA,
            "what": "numeric_value is not a finite number",
            "count": 1,
            "remedy": "leave numeric_value empty (null) when there is none",
            "examples": [{"row": 4, "row_group": 1, "subject": A, "value": "Temp = NaN"}],
        }
    ]
    assert content["summary"]["tasks"]["death"]["splits"]["train"]["rate"] == 0.5


def test_labels_elsewhere(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "labels").rename(tmp_path / "mine")
    content = as_json(capsys, root, "--labels", tmp_path / "mine", *NOW)
    assert content["warnings"] == []
    assert set(content["summary"]["tasks"]) == {"days", "death"}


@pytest.mark.parametrize("rule", list(RULES))
def test_a_shared_report_names_nobody(
    root: Path, rule: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whatever is wrong: no subject, no time, no count of one to nine, no path of this machine."""
    BREAKS[rule](root)
    content = as_json(capsys, root, *NOW, "--no-identifiers")
    assert content["note"] == "without subjects, rows and small counts: may be shared"
    found = content["errors"] + content["warnings"]
    assert rule in {each["check"] for each in found}
    assert all(each["examples"] == [] for each in found)
    assert all(each["severity"] == RULES[each["check"]].severity for each in found)
    run(root, *NOW, "--no-identifiers")
    taught = ("DIR is the folder that holds data/", "hymate data check north-meds", "--no-identifiers")
    for text in (*taught, "Exit code 0", "--labels"):
        assert text in printed


def test_the_page_in_docs_names_every_rule() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data-check.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (error|warning) \|", page, flags=re.MULTILINE))
    assert {name: Severity(severity) for name, severity in listed.items()} == {
        name: rule.severity for name, rule in RULES.items()
    }

"""`hymate data check` as a person and a program meet it: page, JSON, exit codes, and what may be shared."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hymate.cli import app
from hymate.command import run_command
from hymate.data.checks.rules import RULES, Severity
from hymate.data.checks.sharing import shareable
from hymate.data.meds import SPLITS, write_dataset
from tests.hymate.data.meds_folders import (
    BREAKS,
    DATA,
    DAY,
    DEATHS,
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
    for text in (json.dumps(content), capsys.readouterr().out):
        assert not re.search(rf"{str(FIRST_SUBJECT)[:6]}\d+", text)
        assert not re.search(r"\d{4}-\d\d-\d\d", text.replace("1970-01-01", ""))
        assert str(tmp_path) not in text
        assert "0.parquet" not in text
    counts = [each["count"] for each in found]
    summary = content["summary"]
    counts += [summary["subjects"], summary["events"], summary["static"], *summary["splits"].values()]
    for task in summary["tasks"].values():
        for labels in task["splits"].values():
            counts += [labels["stays"], labels["subjects"], labels["positives"] or 0]
            assert (labels["rate"], labels["values"]) == (None, None)
    assert all(count == "<10" or count % 10 == 0 for count in counts)
    assert summary["codes"] == []  # fewer than 10 subjects have any of them


def test_what_a_shared_report_tells_of_a_larger_hospital(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1,000 subjects; Lactate of 995, so that those without are few; Rare of 9; Late, but for 3, too late."""
    subjects = range(1000)
    rows = [(subject, NOON, "HR", 60.0 + subject % 50) for subject in subjects]
    rows += [(subject, NOON, "Lactate", float(subject)) for subject in range(995)]
    rows += [(subject, NOON, "Rare", 1.0) for subject in range(9)]
    rows += [(subject, NOON, "Seldom", 1.0) for subject in range(40)]
    rows += [(subject, NOON if subject < 3 else NOON + 2 * DAY, "Late", 1.0) for subject in range(40)]
    write_dataset(
        tmp_path / "site",
        name="site",
        events=events(*rows),
        splits=pl.DataFrame(
            {"subject_id": subjects, "split": [SPLITS[min(subject // 400, 2)] for subject in subjects]}
        ),
        labels={
            "death": pl.DataFrame(
                {
                    "subject_id": subjects,
                    "prediction_time": [NOON + DAY] * 1000,
                    # 100 of 400 in train, 9 of 400 in tuning, all but 5 of 200 held out
                    "boolean_value": [s < 100 or 400 <= s < 409 or s >= 805 for s in subjects],
                }
            )
        },
        codes=pl.DataFrame({"code": ["HR", "Lactate", "Rare", "Seldom", "Late"]}),
    )
    summary = as_json(capsys, tmp_path / "site", *NOW, "--no-identifiers")["summary"]
    codes = {code["code"]: code for code in summary["codes"]}
    assert list(codes) == ["HR", "Lactate", "Late", "Seldom"]
    assert codes["HR"]["missing_subjects"] == 0.0
    assert codes["Lactate"]["missing_subjects"] == "<10"
    assert codes["Seldom"]["missing_subjects"] == 0.96
    assert codes["Late"]["missing_stays"] == "all but <10"  # 3 have it by their prediction time
    assert codes["HR"]["values"] == {"p1": 60.0, "median": 84.0, "p99": 109.0, "min": None, "max": None}
    assert codes["Lactate"]["values"]["p99"] is None  # fewer than 10 values lie above
    labels = summary["tasks"]["death"]["splits"]
    assert (labels["train"]["positives"], labels["train"]["rate"]) == (100, 0.25)
    assert (labels["tuning"]["positives"], labels["tuning"]["rate"]) == ("<10", None)
    assert (labels["held_out"]["positives"], labels["held_out"]["rate"]) == (200, None)
    run(tmp_path / "site", *NOW, "--no-identifiers")
    page = capsys.readouterr().out
    assert "and 1 more codes, those of fewer than 10 subjects among them" in page
    assert "Rare" not in page


def test_small_counts_cannot_be_had_by_subtraction() -> None:
    """Two published counts whose difference is small do not tell it."""
    assert shareable(1004) == shareable(1000) == 1000
    assert [shareable(count) for count in (0, 1, 9, 10, 14, 15)] == [0, "<10", "<10", 10, 10, 20]


def test_the_command_says_when_it_has_to_be_kept_inside(root: Path) -> None:
    """As installed: standard output is a pipe, so no colour, no folding to 80 columns, no progress bar."""
    (root / DEATHS).unlink()
    command = [sys.executable, "-m", "hymate.cli", "data", "check", str(root), *NOW]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("for the hospital only: may name subjects\n")
    assert "warning [task-without-stays] task death has no stay in train" in done.stdout


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    printed = " ".join(capsys.readouterr().out.split())
    taught = ("DIR is the folder that holds data/", "hymate data check north-meds", "--no-identifiers")
    for text in (*taught, "Exit code 0", "--labels"):
        assert text in printed


def test_the_page_in_docs_names_every_rule() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data-check.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (error|warning) \|", page, flags=re.MULTILINE))
    assert {name: Severity(severity) for name, severity in listed.items()} == {
        name: rule.severity for name, rule in RULES.items()
    }

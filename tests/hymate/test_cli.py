"""The command `hymate`: figures for people and for programs, faults in one line, nothing slow in --help."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from hymate.cli import app
from hymate.command import run_command
from hymate.errors import InputFault
from tests.hymate.data.challenge import ordinary, write_set


def hymate(*arguments: str | Path) -> int:
    return run_command(app, "hymate", [str(argument) for argument in arguments])


def test_synthetic_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hymate("data", "synthetic", "--out", tmp_path / "c", "--hospitals", 2, "--stays", 1000) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    words = {line.split()[0]: line.split() for line in printed.out.splitlines() if line.strip()}
    assert words["hospital_1"][1] == "1,000"
    assert words["hospital_2"][-1] == "700/100/200"
    assert words["all"][2] == "2,000"
    truth = json.loads((tmp_path / "c" / "truth.json").read_text())
    assert f"best reachable AUROC: {truth['bayes_auroc']:.3f}" in printed.out


def test_synthetic_json_is_all_that_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--hospitals", 1, "--stays", 20, "--signal", 0, "--json")
    assert hymate("data", "synthetic", "--out", tmp_path / "c", *map(str, arguments)) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    summary = json.loads(printed.out)
    assert summary["sites"]["hospital_1"]["stays"] == 20
    assert summary["bayes_auroc"] == pytest.approx(0.5)
    assert {
        **json.loads((tmp_path / "c" / "summary.json").read_text()),
        "out": str(tmp_path / "c"),
    } == summary


def test_physionet2012_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path / "raw", "a", ordinary(1, 20), packed=".tar.gz")
    arguments = ("--raw", tmp_path / "raw", "--out", tmp_path / "out", "--site-by", "icu_type")
    assert hymate("data", "physionet2012", *arguments) == 0
    printed = capsys.readouterr().out
    assert "left out: 20 dynamic values missing (negative)" in printed
    assert "left out: 0 exact duplicates" in printed
    assert hymate("data", "physionet2012", *arguments, "--force", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["sites"]["medical"]["splits"] == {"train": 14, "tuning": 2, "held_out": 4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["data", "physionet2012", "--raw", "nowhere", "--out", "o", "--site-by", "set"],
            "nowhere: no such folder",
        ),
        (["data", "physionet2012", "--raw", ".", "--out", "o"], "Missing option '--site-by'"),
        (["data", "physionet2012", "--raw", ".", "--out", "o", "--site-by", "ward"], "'ward' is not one of"),
        (["data", "synthetic", "--out", "o", "--hospitals", "0"], "0 is not in the range"),
        (["data", "synthetic", "--out", "o", "--stays", "many"], "'many' is not a valid int"),
        (["data", "mimic"], "No such command 'mimic'"),
        (["--colour"], "No such option"),
    ],
)
def test_a_wrong_call_is_one_line_and_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert hymate(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("hymate: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_subcommand_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert hymate() == 2
    assert "Usage: hymate" in capsys.readouterr().out


@pytest.mark.parametrize("subcommand", [[], ["data"], ["data", "synthetic"], ["data", "physionet2012"]])
def test_help(subcommand: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert hymate(*subcommand, "--help") == 0
    assert f"Usage: {' '.join(['hymate', *subcommand])}" in capsys.readouterr().out


def test_help_says_what_a_path_without_an_option_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert hymate("report", "compare", "--help") == 0
    assert "the first is what others are" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert hymate("--version") == 0
    name, number = capsys.readouterr().out.split()
    assert name == "hymate"
    assert number[0].isdigit()


@pytest.mark.parametrize(
    ("raised", "code", "printed"),
    [
        (InputFault("row 3", "has\ntwo lines", "write one"), 2, "demo: row 3: has two lines; write one\n"),
        (KeyboardInterrupt(), 130, "demo: interrupted\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "demo: the disk: No space left on device; make room, or give another path\n",
        ),
        (
            OSError(errno.EISDIR, "Is a directory", ".out.1f", None, "out"),
            2,
            "demo: out: Is a directory; give another path, or change what is there\n",
        ),
        (typer.Exit(7), 7, ""),
        (typer.BadParameter("too small"), 2, "demo: Invalid value: too small; see 'demo --help'\n"),
    ],
)
def test_how_a_command_ends(
    raised: BaseException, code: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = typer.Typer(pretty_exceptions_enable=False)

    @demo.command()
    def only() -> None:
        raise raised

    assert run_command(demo, "demo", []) == code
    assert capsys.readouterr().err.lstrip("\n") == printed


@pytest.mark.parametrize(
    "defect",
    [ZeroDivisionError(), FileNotFoundError(errno.ENOENT, "No such file", "x"), OSError(errno.EACCES, "?")],
)
def test_a_defect_of_ours_keeps_its_traceback(defect: Exception) -> None:
    demo = typer.Typer(pretty_exceptions_enable=False)

    @demo.command()
    def only() -> None:
        raise defect

    with pytest.raises(type(defect)):
        run_command(demo, "demo", [])


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from hymate.cli import app; from hymate.command import run_command; "
        "code = run_command(app, 'hymate', ['data', 'synthetic', '--help']); "
        "heavy = {'torch', 'polars', 'numpy', 'pyarrow', 'flwr', 'ray'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_installed_command_ends_as_promised(tmp_path: Path) -> None:
    raw, out = tmp_path / "nowhere", tmp_path / "out"
    command = [sys.executable, "-m", "hymate.cli", "data", "physionet2012", "--site-by", "none"]
    done = subprocess.run(
        [*command, "--raw", str(raw), "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    message = "no such folder; give the folder that holds set-a, set-b or set-c"
    assert done.stderr == f"hymate: {raw}: {message}\n"

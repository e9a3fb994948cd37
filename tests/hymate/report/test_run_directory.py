"""`hymate report RUN`: the page from the directory alone; what cannot be used is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hymate.cli import app
from hymate.command import run_command
from hymate.errors import InputFault
from hymate.report.run_directory import read_run
from hymate.report.schema import published_schema
from tests.hymate.report.example import copied


def test_the_page_is_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copied(tmp_path / "run")
    (run / "model_card.yaml").write_text("intended_use: For ward rounds.\ntripod: {18a: Nobody paid.}\n")
    assert run_command(app, "hymate", ["report", str(run)]) == 0
    assert capsys.readouterr().out == f"written: {run / 'report.html'}\n"
    first = (run / "report.html").read_bytes()
    assert b"For ward rounds." in first
    assert b"Nobody paid." in first
    assert run_command(app, "hymate", ["report", "rebuild", str(run)]) == 0
    assert (run / "report.html").read_bytes() == first


def test_a_place_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(tmp_path / "run")
    (tmp_path / "file").touch()
    assert run_command(app, "hymate", ["report", str(run), "--out", str(tmp_path / "file" / "x.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert run_command(app, "hymate", ["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").is_file()
    assert not (run / "report.html").exists()


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(app, "hymate", ["report", "schema"]) == 0
    assert capsys.readouterr().out == published_schema()


def test_what_is_no_finished_study_is_one_line(tmp_path: Path) -> None:
    run = copied(tmp_path / "run")
    for path, text, said in (
        ("report.json", "{", "report.json: is not JSON"),
        ("report.json", "[]", "is no report of a federated study"),
        ("report.json", '{"format": 1, "kind": "training"}', "is no report of a federated study"),
        ("report.json", '{"format": 1}', "was written by an older version (format 1"),
        ("report.json", '{"format": 99}', "was written by a newer version"),
        ("report.json", '{"format": 2}', "key 'study' is missing"),
        ("metrics.jsonl", '{"a": 1}\n{"b"', "metrics.jsonl: is not JSON"),
        ("model_card.yaml", "tripod: {3z: x}", "no item of TRIPOD+AI"),
        ("model_card.yaml", "use: x", "use"),
        ("explanations/hospital_1/explanation.json", '{"format": 1}', "is missing"),
    ):
        kept = (run / path).read_text() if (run / path).is_file() else None
        (run / path).write_text(text)
        with pytest.raises(InputFault) as fault:
            read_run(run)
        assert said in str(fault.value)
        assert "\n" not in str(fault.value)
        if kept is None:
            (run / path).unlink()
        else:
            (run / path).write_text(kept)
    read_run(run)


@pytest.mark.parametrize("missing", ["report.json", "metrics.jsonl", "study.yaml"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copied(tmp_path / "run")
    (run / missing).unlink()
    assert run_command(app, "hymate", ["report", str(run)]) == 2
    shown = capsys.readouterr()
    assert missing in shown.err
    assert shown.err.count("\n") == 1
    assert not (run / "report.html").exists()


def test_folders_without_a_study_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="is no folder"):
        read_run(tmp_path / "none")
    with pytest.raises(InputFault, match="no study was run there"):
        read_run(tmp_path)
    (tmp_path / "study.yaml").touch()
    with pytest.raises(InputFault, match="has not finished"):
        read_run(tmp_path)


def test_a_single_patient_s_explanation_is_refused(tmp_path: Path) -> None:
    run = copied(tmp_path / "run")
    path = run / "explanations" / "hospital_1" / "explanation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "subject_id": 7}))
    with pytest.raises(InputFault, match="single patient's stay"):
        read_run(run)

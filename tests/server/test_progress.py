"""What a person is told of a running study: every new thing once, every site's state, the time left."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from server.journal import METRICS, PARTICIPATION
from server.progress import DeploymentProgress, Lines, Progress
from server.study_view import StudyView

PLANNED = {"pretrain": 2, "finetune": 3}
ROUND: dict[str, Any] = {"event": "round", "loss": 0.5, "slowest_s": 3.0}


def append(path: Path, *lines: dict[str, Any]) -> None:
    with path.open("a") as stream:
        for line in lines:
            stream.write(json.dumps({"time": time.time(), **line}) + "\n")


def watched(run: Path, *, resumed: bool = False) -> tuple[DeploymentProgress, io.StringIO]:
    said = io.StringIO()
    view = StudyView(("north", "south"), PLANNED)
    return DeploymentProgress(run, Console(file=said, width=200), view, resumed=resumed), said


def test_every_line_is_given_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines = Lines(path)
    assert list(lines) == []
    append(path, {"n": 1}, {"n": 2})
    with path.open("a") as stream:
        stream.write('{"time": 9e9, "n"')
    assert [line["n"] for line in lines] == [1, 2]
    with path.open("a") as stream:
        stream.write(": 3}\n")
    assert [line["n"] for line in lines] == [3]
    assert list(lines) == []


def test_a_run_that_goes_on_tells_what_is_new_though_its_journal_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append(path, *({"n": n, "words": "x" * 50} for n in range(5)))
    kept = path.read_bytes().splitlines(keepends=True)[:3]
    lines = Lines(path, from_now=True)
    assert list(lines) == []
    path.write_bytes(b"".join(kept))
    append(path, {"n": 5, "words": "y" * 200})
    assert [line["n"] for line in lines] == [5]


def test_without_a_terminal_it_is_plain_lines(tmp_path: Path) -> None:
    progress, said = watched(tmp_path)
    progress.waiting({"north": True, "south": False})
    progress.waiting({"north": True, "south": False})
    progress.waiting({"north": True, "south": True})
    append(
        tmp_path / METRICS,
        {"phase": "pretrain", "event": "began"},
        {"phase": "pretrain", "event": "asked", "server_round": 1},
        {"phase": "pretrain", **ROUND, "round": 1, "rounds": 2},
        {"phase": "pretrain", "event": "paused", "cause": "1 of 2 [sites]", "server_round": 2},
        {"phase": "left_out", "event": "site", "site": "north"},
        {"phase": "left_out", "event": "note", "text": "no model without north: [late]"},
    )
    append(
        tmp_path / PARTICIPATION,
        {"site": "north", "outcome": "replied", "reason": ""},
        {"site": "south", "outcome": "late", "reason": "no reply before the deadline"},
    )
    progress()
    progress()
    lines = [line.strip() for line in said.getvalue().splitlines()]
    assert lines[:2] == [
        "waiting for sites: north online, south not seen yet",
        "waiting for sites: north online, south online",
    ]
    assert lines[2].endswith("pretraining (masked forecasting)")
    assert lines[3:] == [
        "round 1/2, loss 0.5000, 3 s",
        "paused: 1 of 2 [sites]",
        "without north",
        "no model without north: [late]",
        "south late: no reply before the deadline",
    ]


def test_a_resumed_run_does_not_repeat_old_news(tmp_path: Path) -> None:
    append(tmp_path / METRICS, {"phase": "pretrain", "event": "began"})
    progress, said = watched(tmp_path, resumed=True)
    append(
        tmp_path / METRICS,
        {"phase": "resume", "event": "resumed", "after": "pretrain", "server_round": 1},
        {"phase": "finetune", "event": "began"},
    )
    progress()
    (line,) = said.getvalue().splitlines()  # that it goes on was told before its SuperLink started
    assert line.endswith("fine-tuning on the label")


def test_the_simulation_tells_the_same_rounds(tmp_path: Path) -> None:
    said = io.StringIO()
    progress = Progress(tmp_path, Console(file=said, width=200))
    figures = {"round": 1, "rounds": 3, "tuning_auroc": 0.75, "tuning_auprc": None}
    append(tmp_path / METRICS, {"phase": "finetune", **ROUND, **figures})
    progress()
    assert "round 1/3, loss 0.5000, before it tuning AUROC 0.7500, AP -, 3 s" in said.getvalue()


def seen(view: StudyView) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(view.table("pretraining"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_shows_round_sites_and_time_left() -> None:
    view = StudyView(("north", "south"), PLANNED)
    view.waiting({"north": True, "south": False})
    assert view.status == {"north": "online", "south": "not seen yet"}
    view.progress({"phase": "pretrain", "event": "began", "time": 0.0})
    assert view.seconds_left() is None
    view.progress({"phase": "pretrain", "event": "asked", "server_round": 1, "time": 100.0})
    for site in ("north", "south"):
        view.participation({"site": site, "outcome": "asked"})
    view.participation({"site": "south", "outcome": "quarantined", "reason": "holds [NaN]"})
    view.participation({"site": "node 7", "outcome": "replied"})
    view.progress({"phase": "pretrain", "event": "round", "round": 1, "rounds": 2, "time": 160.0})
    assert view.status == {"north": "working", "south": "quarantined"}
    assert view.seconds_left() == pytest.approx(60.0 * (1 + 3))
    text = seen(view)
    assert "pretraining, round 1/2, at most 4 min of training left" in text
    assert "holds [NaN]" in text
    view.progress({"phase": "finetune", "event": "began", "time": 200.0})
    assert view.seconds_left() is None  # another kind of round: its pace is not known yet
    view.participation({"site": "south", "outcome": "asked"})
    assert "NaN" not in seen(view)

"""How a command that runs experiments ends: one line and a code, whatever went wrong."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from benchmarks.command import exit_code
from hymate.errors import InputFault
from server.failure import StudyFailure


@pytest.fixture(autouse=True)
def own_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (InputFault("here", "is wrong", "mend it"), 2, "name: here: is wrong"),
        (StudyFailure("round 3: nobody answered"), 1, "name: a study ended early: round 3: nobody answered"),
        (KeyboardInterrupt(), 130, "name: stopped; the same command goes on"),
    ],
)
def test_one_line_says_why(
    fault: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> int:
        raise fault

    assert exit_code("name", run) == code
    said = capsys.readouterr().err
    assert said.startswith(words)
    assert said.count("\n") == 1

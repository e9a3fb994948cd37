"""The privacy ledger where processes are killed or come at once, and where its file is damaged."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from client.ledger import COUNT, FILE, Ledger
from client.preflight.ledger import check_ledger
from client.preflight.lines import Status, guarded
from hymate.errors import InputFault
from tests.client.ledgers import ROOT, entry_of, epsilon_after, rounds_of, site_of

KILLED = """
import os, signal, sys
from pathlib import Path
from client import ledger
from tests.client.test_ledger import entry_of, site_of
site, sent, how = site_of(Path(sys.argv[1])), Path(sys.argv[1]) / "sent", sys.argv[2]
def dies(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if how == "before the count":
    ledger.Ledger._seal = lambda self, rows: dies() if rows else real(self, rows)
for number in range(1, 10**6):
    ledger.Ledger(site).charge(entry_of(number))
    if how == "before the steps":
        dies()
    with sent.open("a") as file:  # the steps, and the reply
        file.write(f"{number}\\n")
        file.flush()
"""


def killed(folder: Path, how: str, after_s: float = 60.0) -> list[int]:
    """Rounds that were given by a process that ended with SIGKILL."""
    code = KILLED.replace("if how ==", "real = ledger.Ledger._seal\nif how ==", 1)
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), how], cwd=ROOT)
    sent, until = folder / "sent", time.monotonic() + 60.0
    if how == "any time":
        while not (sent.exists() and len(sent.read_text().split()) > 3) and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(0.013)
        process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    return [int(number) for number in sent.read_text().split()] if sent.exists() else []


@pytest.mark.parametrize("how", ["before the steps", "before the count", "any time"])
def test_kill_9_can_only_count_too_much(how: str, tmp_path: Path) -> None:
    given = killed(tmp_path, how)
    site = site_of(tmp_path)
    counted = rounds_of(site)
    assert set(given) <= set(counted)
    assert len(counted) - len(given) in ({0, 1} if how == "any time" else {1})
    Ledger(site).charge(entry_of(counted[-1]))
    assert rounds_of(site) == counted, "asked again after the crash, it is the same round"
    Ledger(site).charge(entry_of(counted[-1] + 1))
    assert len(rounds_of(site)) == len(counted) + 1


def test_two_processes_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from client.ledger import Ledger\n"
        "from tests.client.test_ledger import entry_of, site_of\n"
        "for number in range(12):\n"
        "    Ledger(site_of(Path(sys.argv[1]))).charge(entry_of(number, study=sys.argv[2]))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), study], cwd=ROOT)
        for study in ("a", "b", "b")
    ]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    entries = Ledger(site_of(tmp_path)).entries()
    assert sorted((one.entry.study, one.entry.round) for one in entries) == [
        (study, number) for study in ("a", "b") for number in range(12)
    ]


def test_charges_at_once_never_pass_the_budget_together(tmp_path: Path) -> None:
    site = site_of(tmp_path, epsilon=epsilon_after(2) * 1.01)

    def charged(number: int) -> bool:
        try:
            Ledger(site).charge(entry_of(number))
        except InputFault:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(charged, range(4))) == 2
    assert len(rounds_of(site)) == 2


def by_sql(statement: str) -> Callable[[Path], None]:
    def damage(state: Path) -> None:
        with closing(sqlite3.connect(state / FILE)) as database, database:
            assert database.execute(statement).rowcount > 0

    return damage


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no database": (
        lambda state: (state / FILE).write_bytes(b"no database, and long enough " * 300),
        "cannot keep",
    ),
    "half of it": (lambda state: os.truncate(state / FILE, 5000), "cannot keep"),
    "emptied": (lambda state: (state / FILE).write_bytes(b""), "lacks 3 of 3 entries"),
    "deleted": (lambda state: (state / FILE).unlink(), "its ledger is gone"),
    "noise changed": (by_sql("UPDATE entries SET noise = 9.0 WHERE number = 2"), "entry 2 .* not as it was"),
    "first lost": (by_sql("DELETE FROM entries WHERE number = 1"), "entry 1 .* not as it was"),
    "last lost": (by_sql("DELETE FROM entries WHERE number = 3"), "lacks 1 of 3 entries"),
    "all lost": (by_sql("DELETE FROM entries"), "lacks 3 of 3 entries"),
    "another": (
        lambda state: shutil.copy(state.parent / "other" / "state" / FILE, state / FILE),
        "is another",
    ),
    "put back": (lambda state: shutil.copy(state.parent / "earlier.sqlite", state / FILE), "lacks 1 of 3"),
    "count lost": (lambda state: (state / COUNT).unlink(), "counts the ledger's entries, is gone or damaged"),
    "count damaged": (
        lambda state: (state / COUNT).write_text("{"),
        "counts the ledger's entries, is gone or damaged",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_ledger_that_cannot_be_believed_lets_nothing_be_trained(kind: str, tmp_path: Path) -> None:
    site = site_of(tmp_path)
    other = site_of(tmp_path / "other")
    for number in (1, 2, 3):
        Ledger(site).charge(entry_of(number))
        Ledger(other).charge(entry_of(number, study="another"))
        if number == 2:
            shutil.copy(site.state / FILE, tmp_path / "earlier.sqlite")
    damage, said = DAMAGE[kind]
    damage(site.state)
    for use in (
        lambda: Ledger(site).charge(entry_of(4)),
        lambda: Ledger(site).charge(entry_of(1)),
        Ledger(site).entries,
    ):
        with pytest.raises(InputFault, match=said) as fault:
            use()
        assert "othing private is trained" in fault.value.remedy
    (line,) = guarded("ledger", lambda: check_ledger(site))
    assert line.status is Status.FAIL


def test_a_ledger_that_cannot_be_written_lets_nothing_be_trained(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    Ledger(site).charge(entry_of())
    with closing(sqlite3.connect(site.state / FILE, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("client.ledger.TIMEOUT_S", 0.1)
            with pytest.raises(InputFault, match=r"cannot keep its privacy ledger .*locked"):
                Ledger(site).charge(entry_of(2))
    blocked = site_of(tmp_path / "blocked")
    (tmp_path / "blocked").mkdir()
    blocked.state.write_text("a file where the folder should be")
    with pytest.raises(InputFault, match=r"cannot be read or made|cannot keep"):
        Ledger(blocked).charge(entry_of())

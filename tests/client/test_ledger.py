"""The privacy ledger: charged before, once, within the budget, and believed or not at all."""

from __future__ import annotations

import dataclasses
import json
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

import numpy as np
import pytest

from client import cli
from client.ledger import COUNT, FILE, Ledger
from client.ledger_entry import Entry, start_of
from client.ledger_report import in_words, summary_of
from client.preflight.ledger import check_ledger
from client.preflight.lines import Status, guarded
from client.site import Policy, PrivacyPolicy, SiteConfig, load_site
from client.site_secret import secret_path
from hymate.command import run_command
from hymate.config import FinetuneConfig
from hymate.errors import InputFault
from hymate.privacy.accounting import epsilon_of
from hymate.privacy.spend import SAMPLED_GAUSSIAN, Spend

SPEND = Spend(SAMPLED_GAUSSIAN, 0.05, 1.5, 20)
ROOT = Path(__file__).parent.parent.parent


def site_of(folder: Path, epsilon: float | None = None) -> SiteConfig:
    privacy = None if epsilon is None else PrivacyPolicy(epsilon=epsilon)
    return SiteConfig(name="north", data=folder, state=folder / "state", policy=Policy(privacy=privacy))


def entry_of(number: int = 1, **other: object) -> Entry:
    entry = Entry(
        study="mortality",
        run="r1",
        phase="pretrain",
        round=number,
        start=f"start {number}",
        vocabulary_hash="v",
        dataset="d",
        spend=SPEND,
    )
    return dataclasses.replace(entry, **other)  # type: ignore[arg-type]


def rounds_of(site: SiteConfig) -> list[int]:
    return [recorded.entry.round for recorded in Ledger(site).entries()]


def epsilon_after(rounds: int) -> float:
    return epsilon_of([SPEND] * rounds, 1e-5)


def test_a_round_is_charged_once_and_has_its_key(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    key = Ledger(site).charge(entry_of())
    assert Ledger(site).charge(entry_of()) == key
    assert [recorded.entry for recorded in Ledger(site).entries()] == [entry_of()]
    assert Ledger(site).spent().epsilon == epsilon_after(1)
    assert (site.state / FILE).stat().st_mode & 0o777 == 0o600


def test_whatever_differs_is_another_round_with_other_noise(tmp_path: Path) -> None:
    """Every field: a study's round with the same noise and one thing changed would tell the difference."""
    site, first = site_of(tmp_path), entry_of()
    other: dict[str, object] = {
        field.name: getattr(first, field.name) * 2
        for field in dataclasses.fields(Entry)
        if field.name != "spend"
    }
    other["spend"] = dataclasses.replace(SPEND, noise_multiplier=1.6)
    changed = [dataclasses.replace(first, **{name: value}) for name, value in other.items()]  # type: ignore[arg-type]
    keys = {Ledger(site).charge(entry) for entry in (first, *changed)}
    assert len(keys) == len(changed) + 1 == len(dataclasses.fields(Entry)) + 1
    assert len(Ledger(site).entries()) == len(keys)


def test_a_new_secret_makes_new_rounds(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    key = Ledger(site).charge(entry_of())
    secret_path(site).unlink()
    assert Ledger(site).charge(entry_of()) != key
    assert rounds_of(site) == [1, 1], "other noise on the same round is another release"


def test_what_a_round_begins_with_is_all_of_it(tmp_path: Path) -> None:
    site, request = site_of(tmp_path), FinetuneConfig()
    weights = {"a": np.zeros(4, np.float32), "b": np.ones(2, np.float32)}
    known = start_of(site, request, weights, {})
    assert start_of(site, FinetuneConfig(), dict(reversed(weights.items())), {}) == known
    others = [
        start_of(site, FinetuneConfig(rounds=77), weights, {}),
        start_of(site.model_copy(update={"threads": 2}), request, weights, {}),
        start_of(site, request, {**weights, "a": np.full(4, 1e-9, np.float32)}, {}),
        start_of(site, request, {**weights, "a": np.zeros((2, 2), np.float32)}, {}),
        start_of(site, request, {**weights, "a": np.zeros(2, np.float64)}, {}),
        start_of(site, request, weights, {"moments": np.zeros(1)}),
        start_of(site, request, {}, weights),
        start_of(site, request, weights),
    ]
    assert len({known, *others}) == len(others) + 1


def test_the_budget_is_kept(tmp_path: Path) -> None:
    site = site_of(tmp_path, epsilon=epsilon_after(2) * 1.01)
    keys = [Ledger(site).charge(entry_of(number)) for number in (1, 2)]
    with pytest.raises(InputFault) as refused:
        Ledger(site).charge(entry_of(3))
    text = str(refused.value)
    for said in (epsilon_after(2), epsilon_after(3)):
        assert f"{said:.4g}" in text
    assert f"the budget is {site.policy.privacy.epsilon:g}" in text  # type: ignore[union-attr]
    assert "\n" not in text
    assert rounds_of(site) == [1, 2], "a refused round was not given"
    assert [Ledger(site).charge(entry_of(number)) for number in (1, 2)] == keys, "known rounds are answered"
    Ledger(site).charge(entry_of(3, spend=dataclasses.replace(SPEND, noise_multiplier=500.0, steps=1)))
    with pytest.raises(InputFault, match="does not allow this round"):
        Ledger(site).charge(entry_of(4, study="another", run="r9", dataset="changed", phase="finetune"))


def test_no_noise_is_beyond_every_budget(tmp_path: Path) -> None:
    none = dataclasses.replace(SPEND, noise_multiplier=0.0)
    with pytest.raises(InputFault, match="it would be inf"):
        Ledger(site_of(tmp_path, epsilon=1e9)).charge(entry_of(spend=none))
    unlimited = site_of(tmp_path)
    Ledger(unlimited).charge(entry_of(spend=none))
    assert summary_of(unlimited).spent is None


def test_all_phases_studies_and_data_sets_count(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    for number, (study, phase, dataset) in enumerate(
        [("a", "pretrain", "x"), ("a", "finetune", "x"), ("b", "pretrain", "y")]
    ):
        Ledger(site).charge(entry_of(number, study=study, phase=phase, dataset=dataset))
    assert Ledger(site).spent().epsilon == epsilon_after(3)


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


def test_it_is_told_in_words_and_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site.yaml").write_text(
        "name: north\ndata: meds\npolicy: {privacy: {epsilon: 3, delta: 1e-5, demand: true}}\n"
    )
    site = load_site(tmp_path / "site.yaml")
    arguments = ["ledger", "--config", str(tmp_path / "site.yaml")]
    assert run_command(cli.client_app, "hymate-client", arguments) == 0
    assert "no round with noise was ever given" in capsys.readouterr().out
    for number in (1, 2):
        Ledger(site).charge(entry_of(number))
    Ledger(site).charge(entry_of(3, phase="finetune"))
    assert run_command(cli.client_app, "hymate-client", arguments) == 0
    said = capsys.readouterr().out
    spent = epsilon_after(3)
    assert "3 rounds with noise, 60 steps" in said
    assert f"Budget: epsilon 3 at delta 1e-05. Spent: {spent:.4g}. Left: {3 - spent:.4g}." in said
    assert f"{np.exp(spent):.3g}-fold" in said
    lines = [line.split() for line in said.splitlines() if line.startswith("mortality")]
    assert lines == [
        ["mortality", "pretrain", "2", "40", "1.5", "0.05", f"{epsilon_after(2):.4g}"],
        ["mortality", "finetune", "1", "20", "1.5", "0.05", f"{epsilon_after(1):.4g}"],
    ]
    assert run_command(cli.client_app, "hymate-client", [*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["budget"], told["spent"], told["left"]) == (3.0, spent, 3.0 - spent)
    assert [(part["phase"], part["steps"]) for part in told["parts"]] == [("pretrain", 40), ("finetune", 20)]
    (site.state / COUNT).unlink()
    assert run_command(cli.client_app, "hymate-client", arguments) == 2
    assert "is gone or damaged" in capsys.readouterr().err


def test_without_a_budget_it_says_so(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    Ledger(site).charge(entry_of())
    said = "\n".join(in_words(summary_of(site)))
    assert "Budget: none" in said
    assert "Rounds without noise are given, too" in said
    (line,) = check_ledger(site)
    assert (line.status, "sets no budget" in line.what) == (Status.OK, True)


def test_the_check_warns_before_the_end(tmp_path: Path) -> None:
    (line,) = check_ledger(site_of(tmp_path, epsilon=3.0))
    assert (line.status, line.what) == (
        Status.OK,
        "epsilon 0 of 3 spent (delta 1e-05) by 0 rounds with noise",
    )
    Ledger(site_of(tmp_path)).charge(entry_of())
    (line,) = check_ledger(site_of(tmp_path, epsilon=epsilon_after(1) * 1.05))
    assert line.status is Status.WARN
    secret_path(site_of(tmp_path)).chmod(0o644)
    (line,) = guarded("ledger", lambda: check_ledger(site_of(tmp_path)))
    assert (line.status, "mode 644" in line.what) == (Status.FAIL, True)

"""The privacy ledger: charged before, once, within the budget; what it tells."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from client import cli
from client.ledger import COUNT, FILE, Ledger
from client.ledger_entry import Entry, start_of
from client.ledger_report import in_words, summary_of
from client.preflight.ledger import check_ledger
from client.preflight.lines import Status, guarded
from client.site import load_site
from client.site_secret import secret_path
from hymate.command import run_command
from hymate.config import FinetuneConfig
from hymate.errors import InputFault
from tests.client.ledgers import SPEND, entry_of, epsilon_after, rounds_of, site_of


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

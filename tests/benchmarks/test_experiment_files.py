"""The tables' files: every row is a training that can be run, and differs in what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.experiments.files import FOLDER, TABLES, load_table, row_config
from benchmarks.experiments.places import places
from benchmarks.experiments.runs import runs_of
from hymate.errors import InputFault
from hymate.model.registry import MODELS


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the challenge's folder looks from outside."""
    folder = tmp_path_factory.mktemp("raw")
    for letter in "bc":
        (folder / f"set-{letter}").mkdir()
        (folder / f"Outcomes-{letter}.txt").touch()
    return folder


def differences(one: dict[str, Any], other: dict[str, Any], key: str = "") -> set[str]:
    found = set()
    for name in one.keys() | other.keys():
        here, there = one.get(name), other.get(name)
        if isinstance(here, dict) and isinstance(there, dict):
            found |= differences(here, there, f"{key}{name}.")
        elif here != there:
            found.add(f"{key}{name}")
    return found


def dumped(table: str, row: str, reduced: bool = False) -> dict[str, Any]:
    return row_config(load_table(table), row, reduced).model_dump(mode="json")


def test_the_folder_holds_the_tables_and_the_training_files_they_start_from() -> None:
    bases = {"physionet2012-paper", "physionet2012-best"}
    assert {path.stem for path in FOLDER.glob("*.yaml")} >= {*TABLES, *bases}
    for name in TABLES:
        table = load_table(name)
        assert {(each.base or table.base).stem for each in table.rows.values()} <= bases


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_a_training_and_none_stands_twice(
    name: str, reduced: bool, raw: Path, tmp_path: Path
) -> None:
    table = load_table(name)
    data = table.reduced.data if reduced else table.data
    seeds = table.reduced.seeds if reduced else table.seeds
    runs = runs_of(table, places(data, raw), seeds, tmp_path, reduced=reduced, configs=FOLDER)
    rows = table.reduced.rows or tuple(table.rows) if reduced else tuple(table.rows)
    assert [run.row for run in runs[: len(rows)]] == list(rows)
    assert len({run.id for run in runs}) == len(runs) == len(rows) * len(seeds) * len(places(data, raw))
    for run in runs:
        assert run.config.pretrained is None
        assert "held_out" in run.config.evaluation.splits
        assert run.summary or not run.config.pretrain.rounds or MODELS[run.config.model.name].can_forecast


@pytest.mark.parametrize(
    ("name", "whole"),
    [("ablations", "all parts"), ("best-ablations", "best"), ("labels", "100 %, pretrained")],
)
def test_a_row_differs_in_one_thing(name: str, whole: str) -> None:
    table = load_table(name)
    base = dumped(name, whole)
    allowed = {"pretrain.rounds", "label_share"} if name == "labels" else set()
    if name == "best-ablations":  # distillation teaches the summary branch
        allowed = {"model.d_summary", "finetune.distillation"}
    for row, chosen in table.rows.items():
        changed = differences(base, dumped(name, row))
        assert changed <= allowed or len(changed) == 1, row
        assert (row == whole) == (not changed and chosen.summary is None), row
        assert len(differences(dumped(name, whole, True), dumped(name, row, True))) == len(changed), row


def test_ablations_are_those_of_the_paper() -> None:
    changed = {
        row: differences(dumped("ablations", "all parts"), dumped("ablations", row))
        for row in load_table("ablations").rows
    }
    assert changed["no pretraining"] == {"pretrain.rounds"}
    assert changed["no attention"] == {"model.attention_layers"}
    assert changed["no Mamba"] == {"model.mamba_blocks"}
    assert changed["no triplet embedding"] == {"model.embedding"}
    assert changed["no fusion attention (mean)"] == {"model.pooling"}
    assert changed["no static"] == {"model.static"}


def test_every_baseline_is_compared() -> None:
    for name in ("baselines", "cross-validation"):
        table = load_table(name)
        models = {
            row_config(table, row, False).model.name for row in table.rows if not table.rows[row].summary
        }
        assert models == set(MODELS)
        kinds = {(row.summary, row.fit_on) for row in table.rows.values() if row.summary}
        both = ("train", "tuning")
        assert kinds == {
            ("logistic_regression", ("train",)),
            ("gradient_boosting", ("train",)),
            ("gradient_boosting", both),
        }
        assert table.rows["HyMaTE (best)"].base == Path("physionet2012-best.yaml")


def test_cross_validation_holds_every_fold_out_once(raw: Path) -> None:
    found = places(load_table("cross-validation").data, raw)
    assert [place.label for place in found] == [f"fold {k}" for k in range(1, 6)]
    assert [place.arguments[-4:] for place in found] == [
        ("--fold", str(k), "--folds", "5") for k in range(1, 6)
    ]


def test_widths_lengths_and_shares_are_those_of_the_issue() -> None:
    embedding = [
        row_config(load_table("embedding"), row, False).model for row in load_table("embedding").rows
    ]
    shapes = {(model.d_model, getattr(model, "embedding", "")) for model in embedding}
    assert shapes == {(d, kind) for d in (16, 32, 64) for kind in ("sum", "concat")}
    context = load_table("context")
    lengths = {row_config(context, row, False).task.max_observations for row in context.rows}
    assert lengths == {1000, 4000, 8192}
    labels = load_table("labels")
    assert {row_config(labels, row, False).label_share for row in labels.rows} == {0.1, 0.25, 0.5, 1.0}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("against: nobody", "there is no row 'nobody'"),
        ("data: {}", "name either physionet2012 or synthetic"),
        ("data: {synthetic: {stayz: 3}}", "stayz"),
        ("rowz: {}", "key 'rowz' does not exist"),
    ],
)
def test_a_wrong_table_is_told_in_one_line(change: str, told: str, tmp_path: Path) -> None:
    good = {
        "title": "t",
        "about": "a",
        "base": "b.yaml",
        "data": "{synthetic: {stays: 60}}",
        "rows": "{a: {}}",
    }
    key, value = change.split(": ", 1)
    (tmp_path / "wrong.yaml").write_text("".join(f"{k}: {v}\n" for k, v in {**good, key: value}.items()))
    with pytest.raises(InputFault, match=told) as fault:
        load_table("wrong", tmp_path)
    assert str(tmp_path / "wrong.yaml") in str(fault.value)


def test_a_wrong_row_names_file_and_row(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("name: b\n")
    rows = "rows: {odd: {set: {model: {d_modle: 8}}}}"
    (tmp_path / "t.yaml").write_text(f"title: t\nabout: a\nbase: b.yaml\ndata: {{synthetic: {{}}}}\n{rows}\n")
    with pytest.raises(InputFault, match=r"b\.yaml, row 'odd': key 'model.d_modle' does not exist"):
        row_config(load_table("t", tmp_path), "odd", False, tmp_path)

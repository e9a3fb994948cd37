"""`hymate audit` on a hospital of a synthetic cohort: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from hymate.audit.audit import finetuning_of
from hymate.cli import app
from hymate.command import run_command
from hymate.config import ModelConfig, TaskConfig, VocabularyConfig
from hymate.data.pooling import pool_data
from hymate.train.saved_model import SavedModel, new_model, save_model

Capture = pytest.CaptureFixture[str]
SMALL = ModelConfig(d_model=8, mamba_blocks=1, d_state=4, attention_heads=2, d_static=4, dropout=0.0)
PUBLISHED = {"sites": {"a": {"spent": {"epsilon": 3.5, "delta": 1e-5}}, "b": {"spent": {"epsilon": 2.0}}}}


@dataclass(frozen=True)
class Place:
    """A hospital, and a run whose model has never seen anybody."""

    hospital: Path
    run: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("audit")
    assert hymate("data", "synthetic", "--out", folder / "cohort", "--hospitals", 1, "--stays", 120) == 0
    found = Place(folder / "cohort" / "hospital_1", folder / "run")
    task = TaskConfig()
    vocabulary = pool_data([found.hospital], task, VocabularyConfig()).vocabulary
    model = new_model(SMALL, task, vocabulary, 0)
    save_model(found.run / "model", SavedModel("small", model, SMALL, task, vocabulary))
    (found.run / "study.yaml").write_text(
        yaml.safe_dump({"name": "small", "finetune": {"rounds": 3, "batch_size": 8, "local_epochs": 2}})
    )
    return found


def hymate(*arguments: object) -> int:
    return run_command(app, "hymate", [str(argument) for argument in arguments])


def audit(place: Place, *further: object, members: Path | None = None, others: Path | None = None) -> int:
    given = ("--members", members or place.hospital, "--non-members", others or place.hospital)
    return hymate("audit", "--model", place.run, *given, "--bootstrap", 50, *further)


def one_line(capsys: Capture) -> str:
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("hymate: ")
    return printed.err


def test_an_audit_in_words_and_in_a_file(place: Place, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "audit.json"
    shadows = ("--shadow", 4, "--shadow-epochs", 1, "--work", tmp_path / "work")
    assert audit(place, *shadows, "--probe", 1, "--noise", 2, "--json", file) == 0
    told = capsys.readouterr().out
    content: dict[str, Any] = json.loads(file.read_text())
    splits = pl.read_parquet(place.hospital / "metadata" / "subject_splits.parquet")["split"]
    assert content["people"]["members"] == (splits == "train").sum()
    assert content["people"]["others"] == (splits == "held_out").sum()
    assert [attack["name"] for attack in content["attacks"]] == ["loss threshold", "likelihood ratio"]
    for attack in content["attacks"]:
        assert attack["auc"]["lower"] < attack["auc"]["value"] < attack["auc"]["upper"]
        assert f"{attack['auc']['value']:.3f} (" in told
        assert not attack["resolved"]
    assert "0.1% cannot be resolved" in told
    assert "No epsilon is known for this model" in told
    assert len(content["updates"]) == 6
    assert content["updates"][0]["recall"] == content["updates"][0]["precision"] == 1.0
    assert "1 stay, 1 step " in told
    assert len(list((tmp_path / "work").glob("shadow-*.npy"))) == 4
    assert audit(place, *shadows, "--probe", 0) == 0  # the shadow models are there
    assert "is trained" in capsys.readouterr().err


def test_the_epsilon_that_a_report_knows_stands_beside(place: Place, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    shutil.copytree(place.run, run)
    claims = [
        ({"privacy": PUBLISHED}, "3.5 (the largest"),
        ({"privacy": {"target_epsilon": 8.0}}, "8 (the st"),
    ]
    for report, words in claims:
        (run / "report.json").write_text(json.dumps(report))
        assert audit(Place(place.hospital, run), "--probe", 0) == 0
        assert f"does not contradict epsilon {words}" in capsys.readouterr().out
    assert audit(Place(place.hospital, run), "--probe", 0, "--epsilon", 1.25) == 0
    assert "epsilon 1.25 (as given)" in capsys.readouterr().out


def test_shadows_are_fine_tuned_as_the_run_was(place: Place, tmp_path: Path) -> None:
    assert (finetuning_of(place.run).rounds, finetuning_of(place.run).local_epochs) == (3, 2)
    assert finetuning_of(tmp_path).rounds == 10
    (tmp_path / "train.yaml").write_text("finetune: {soft_labels: {share: 0.3}, rounds: 7}")
    found = finetuning_of(tmp_path)
    assert (found.rounds, found.soft_labels) == (7, None)


def test_what_cannot_be_audited_is_one_line(place: Place, tmp_path: Path, capsys: Capture) -> None:
    capsys.readouterr()
    same = ("--non-member-split", "train", "--non-member-split", "tuning")
    assert audit(place, *same) == 2
    assert "are among the members" in one_line(capsys)
    assert audit(place, members=tmp_path / "nowhere") == 2
    assert "no such folder" in one_line(capsys)
    assert audit(place, "--shadow", 3) == 2
    assert "give an even number" in one_line(capsys)
    assert hymate("audit", "--model", tmp_path, "--members", ".", "--non-members", ".") == 2
    assert "holds no model" in one_line(capsys)
    copy = tmp_path / "hospital"
    shutil.copytree(place.hospital, copy)
    path = copy / "metadata" / "subject_splits.parquet"
    splits = pl.read_parquet(path)
    turned = splits.with_columns(pl.col("split").replace({"train": "held_out", "held_out": "train"}))
    turned.write_parquet(path)
    assert audit(place, others=copy) == 2
    assert "are among the members" in one_line(capsys)
    split = pl.when(pl.int_range(pl.len()) < 4).then(pl.lit("held_out")).otherwise(pl.lit("train"))
    few = splits.with_columns(split.alias("split"))
    few.write_parquet(path)
    assert audit(place, "--probe", 0, members=copy, others=copy) == 2
    assert "an audit needs 10 at least" in one_line(capsys)

"""`hymate train` with further labels, soft labels, a frozen start and two members, from data to figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hymate.cli import app
from hymate.command import run_command
from hymate.train.saved_model import load_model

FILE = """
name: rich
seed: 4
data: cohort/hospital_1
model: {d_model: 16, mamba_blocks: 1, d_state: 4, attention_heads: 2, d_static: 4, d_summary: 8}
pretrain: {rounds: 1, schedule: cosine}
finetune:
  rounds: 2
  ema: 0.9
  schedule: cosine
  warm_epochs: 2
  encoder_rate: 0.5
  positive_weight: none
  auxiliary: {tasks: [length_of_stay], weight: 0.5}
  soft_labels: {from: boosting, share: 0.5, folds: 2}
evaluation: {bootstrap: 0}
ensemble: 2
"""


def hymate(*arguments: object) -> int:
    return run_command(app, "hymate", [str(argument) for argument in arguments])


def test_an_ensemble_from_data_to_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, run = tmp_path / "train.yaml", tmp_path / "run"
    file.write_text(FILE)
    assert hymate("data", "synthetic", "--out", tmp_path / "cohort", "--hospitals", 1, "--stays", 120) == 0
    capsys.readouterr()
    assert hymate("train", "--config", file, "--out", run, "--json") == 0
    told = capsys.readouterr()
    report = json.loads(told.out)
    members = report["ensemble"]["members"]
    assert [member["seed"] for member in members] == [4, 5]
    assert [member["pretraining"]["epochs"] for member in members] == [1, 0]  # shared
    assert [member["finetuning"]["warm_epochs"] for member in members] == [2, 2]
    assert report["finetuning"]["positive_weight"] == 1.0
    own = [member["evaluation"]["held_out"]["brier"]["value"] for member in members]
    assert own[0] != own[1]
    assert report["evaluation"]["held_out"]["brier"]["value"] < max(own)  # convex: a mean is no worse
    assert "member 2 of 2, seed 5" in told.err
    assert told.err.count("held_out") == 1  # the data are told once
    assert sorted(path.name for path in (run / "members").iterdir()) == ["4", "5"]
    assert not list(run.glob("*labels.npy"))

    out = tmp_path / "predictions"
    parts = [run, run / "members" / "4", run / "members" / "5"]
    for number, part in enumerate(parts):
        place = out / f"{number}.parquet"
        arguments = ("--data", tmp_path / "cohort" / "hospital_1", "--split", "held_out")
        assert hymate("predict", "--model", part, *arguments, "--out", place) == 0
    mean, *each = (
        pl.read_parquet(out / f"{number}.parquet")["predicted_boolean_probability"].to_numpy()
        for number in range(3)
    )
    assert mean == pytest.approx(np.mean(each, axis=0), abs=1e-6)
    assert load_model(run).members == 2
    first, second = (load_model(part).model.state_dict() for part in parts[1:])
    assert first.keys() == second.keys()

    capsys.readouterr()
    changed = ("--set", "ensemble=1", "--set", "model.d_summary=0", "--set", "finetune.warm_epochs=0")
    small = ("--out", tmp_path / "again", "--pretrained", run, "--json")
    assert hymate("train", "--config", file, *changed, *small) == 0  # the summary branch is not pretrained
    again = json.loads(capsys.readouterr().out)
    assert "ensemble" not in again
    assert again["pretraining"]["epochs"] == 0


def test_tuning_stays_can_be_learned_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, kinds = tmp_path / "train.yaml", {}
    file.write_text(FILE.replace("ensemble: 2", "").replace("soft_labels", "distillation").replace(
        "{from: boosting, share: 0.5, folds: 2}", "{epochs: 1}"))  # fmt: skip
    assert hymate("data", "synthetic", "--out", tmp_path / "cohort", "--hospitals", 1, "--stays", 120) == 0
    for name, fit_on in (("train", "[train]"), ("both", "[train, tuning]")):
        out = tmp_path / name
        capsys.readouterr()
        assert hymate("train", "--config", file, "--out", out, "--json", "--set", f"fit_on={fit_on}") == 0
        report = json.loads(capsys.readouterr().out)
        kinds[name] = {split: part["stays"] for split, part in report["data"]["splits"].items()}
        vocabulary = (out / "vocabulary.json").read_bytes()
        assert vocabulary == (tmp_path / "train" / "vocabulary.json").read_bytes()
        assert report["finetuning"]["epochs"] == 2
        assert (report["finetuning"]["best_epoch"] == 2) >= (name == "both")
        assert report["finetuning"]["criterion"] == (
            "none" if name == "both" else "auroc + average precision"
        )
    assert kinds["both"]["train"] == kinds["train"]["train"] + kinds["train"]["tuning"]
    assert kinds["both"]["tuning"] == 0 < kinds["train"]["tuning"]
    assert kinds["both"]["held_out"] == kinds["train"]["held_out"]
    faults = (("fit_on=[tuning]", "lacks train"), ("evaluation.splits=[tuning]", "which fit_on learns from"))
    for change, says in faults:
        changes = ("--set", "fit_on=[train, tuning]", "--set", change)
        assert hymate("train", "--config", file, "--out", tmp_path / "no", *changes) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "no").exists()

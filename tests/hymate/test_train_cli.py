"""`hymate train`, `predict`, `evaluate` on a synthetic cohort: what comes out, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from meds.schema import LabelSchema

from hymate.cli import app
from hymate.command import run_command
from hymate.config import ModelConfig, TaskConfig
from hymate.data.vocabulary import Vocabulary
from hymate.model.hymate import build_model
from hymate.train.saved_model import load_model
from server.checkpoint import save_study_model
from server.study import StudyConfig

FILE = """
name: small
data: [cohort/hospital_1, cohort/hospital_2]
model: {d_model: 16, mamba_blocks: 1, d_state: 4, attention_heads: 2, d_static: 4}
pretrain: {rounds: 1}
finetune: {rounds: 2, learning_rate: 2.0e-3}
evaluation: {bootstrap: 20, splits: [tuning, held_out]}
"""
Capture = pytest.CaptureFixture[str]


def hymate(*arguments: object) -> int:
    return run_command(app, "hymate", [str(argument) for argument in arguments])


@dataclass(frozen=True)
class Place:
    """A cohort of two hospitals, a training file, and a run of it."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "train.yaml"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def hospital(self) -> Path:
        return self.folder / "cohort" / "hospital_1"

    def report(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.run / "report.json").read_text())
        return content


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = Place(tmp_path_factory.mktemp("train"))
    cohort = found.folder / "cohort"
    assert hymate("data", "synthetic", "--out", cohort, "--hospitals", 2, "--stays", 60) == 0
    found.file.write_text(FILE)
    assert hymate("train", "--config", found.file, "--out", found.run) == 0
    return found


def one_line(capsys: Capture) -> str:
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("hymate: ")
    return printed.err


def test_the_run_directory(place: Place) -> None:
    names = {path.name for path in place.run.iterdir() if not path.name.startswith(".")}
    assert names == {
        "train.yaml", "data.json", "vocabulary.json", "metrics.jsonl", "tensorboard", "checkpoints",
        "pretrained", "model", "predictions", "report.json",
    }  # fmt: skip
    report = place.report()
    stays = {name: part["stays"] for name, part in report["data"]["splits"].items()}
    assert sum(stays.values()) == 120
    assert report["evaluation"]["held_out"]["stays"] == stays["held_out"]
    assert report["pretraining"]["epochs"] == 1
    assert [json.loads(line)["phase"] for line in (place.run / "metrics.jsonl").open()] == [
        "pretrain",
        "finetune",
        "finetune",
    ]


def test_predict_repeats_the_runs_own_predictions(place: Place, tmp_path: Path, capsys: Capture) -> None:
    """Of the pooled run's held-out stays, those of one hospital: the same numbers, batch by batch apart."""
    out = tmp_path / "p.parquet"
    arguments = ("--model", place.run, "--data", place.hospital, "--split", "held_out", "--out", out)
    assert hymate("predict", *arguments) == 0
    assert "written" in capsys.readouterr().err
    table = pl.read_parquet(out)
    pooled = pl.read_parquet(place.run / "predictions" / "held_out.parquet")
    both = table.join(pooled, on=["subject_id", "prediction_time"], suffix="_run")
    assert len(both) == len(table) == 12
    gap = both["predicted_boolean_probability"] - both["predicted_boolean_probability_run"]
    assert gap.abs().max() < 1e-6  # type: ignore[operator]
    assert (both["boolean_value"] == both["boolean_value_run"]).all()


def test_predictions_are_meds_evaluations(place: Place, tmp_path: Path) -> None:
    """The label columns pass MEDS' own schema; the two others have the types of `PredictionSchema`."""
    out = tmp_path / "p.parquet"
    assert hymate("predict", "--model", place.run, "--data", place.hospital, "--out", out) == 0
    table = pq.read_table(out)
    LabelSchema.validate(table.select(["subject_id", "prediction_time", "boolean_value"]))
    types = {name: str(table.schema.field(name).type) for name in table.column_names[3:]}
    assert types == {"predicted_boolean_value": "bool", "predicted_boolean_probability": "float"}
    frame = pl.read_parquet(out)
    assert len(frame) == 60  # every split
    assert (frame["predicted_boolean_value"] == (frame["predicted_boolean_probability"] >= 0.5)).all()
    labels = pl.read_parquet(place.hospital / "labels" / "in_hospital_mortality" / "*.parquet")
    joined = frame.join(labels, on=["subject_id", "prediction_time"])
    assert (joined["boolean_value"] == joined["boolean_value_right"]).sum() == 60


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_prediction_times_need_no_labels(place: Place, tmp_path: Path, ending: str) -> None:
    """A data set without labels and splits, two stays asked for, one of a subject nobody knows."""
    bare = tmp_path / "bare"
    (bare / "data").mkdir(parents=True)
    for path in (place.hospital / "data").rglob("*.parquet"):
        (bare / "data" / f"{path.parent.name}.parquet").write_bytes(path.read_bytes())
    every = tmp_path / "all.parquet"
    assert hymate("predict", "--model", place.run, "--data", place.hospital, "--out", every) == 0
    known = pl.read_parquet(every).head(2).select("subject_id", "prediction_time")
    asked = known.vstack(known.head(1).with_columns(pl.lit(7, pl.Int64).alias("subject_id")))
    times, out = tmp_path / f"times.{ending}", tmp_path / "p.parquet"
    asked.write_csv(times) if ending == "csv" else asked.write_parquet(times)
    arguments = ("--model", place.run, "--data", bare, "--prediction-times", times, "--out", out)
    assert hymate("predict", *arguments) == 0
    found = pl.read_parquet(out)
    assert "boolean_value" not in found.columns
    expected = pl.read_parquet(every).head(2)
    assert found["subject_id"].to_list() == expected["subject_id"].to_list()
    gap = found["predicted_boolean_probability"] - expected["predicted_boolean_probability"]
    assert gap.abs().max() < 1e-6  # type: ignore[operator]


def test_evaluate_agrees_with_the_report(place: Place, capsys: Capture) -> None:
    file = place.run / "predictions" / "held_out.parquet"
    assert hymate("evaluate", "--predictions", file, "--bootstrap", 20, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    held_out = place.report()["evaluation"]["held_out"]
    assert {key: found[key] for key in held_out} == held_out
    labels = place.hospital / "labels" / "in_hospital_mortality"
    assert hymate("evaluate", "--predictions", file, "--labels", labels, "--bootstrap", 0, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["stays"], found["predictions_without_label"]) == (12, 12)
    assert found["labels_without_prediction"] == 48
    data = (place.hospital, "--task", "in_hospital_mortality")
    assert hymate("evaluate", "--predictions", file, "--labels", *data, "--bootstrap", 0, "--json") == 0
    assert json.loads(capsys.readouterr().out) == found
    assert hymate("evaluate", "--predictions", file) == 0
    assert "AUROC" in capsys.readouterr().out


def test_one_class_is_said(place: Place, tmp_path: Path, capsys: Capture) -> None:
    file = place.run / "predictions" / "held_out.parquet"
    negatives = pl.read_parquet(file).filter(~pl.col("boolean_value"))
    negatives.write_parquet(tmp_path / "n.parquet")
    assert hymate("evaluate", "--predictions", tmp_path / "n.parquet", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["auroc"]["value"] is None
    assert "negative" in found["undefined"]


def test_shared_pretraining_is_the_same_pretraining(place: Place, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "second"
    assert hymate("train", "--config", place.file, "--out", out, "--pretrained", place.run) == 0
    told = capsys.readouterr().err
    assert "fine-tuning on the label\n  1/2, loss " in told
    assert ", at most " in told
    assert "masked forecasting" not in told
    weights = [(run / "model" / "weights.safetensors").read_bytes() for run in (place.run, out)]
    assert weights[0] == weights[1]
    report = json.loads((out / "report.json").read_text())
    assert report["pretraining"] == {"epochs": 0, "from": str(place.run.resolve())}
    assert report["seconds"]["pretrain"] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model.d_model=8", "was pretrained with model.d_model 16, here it is 8"),
        ("task.lookback_hours=24", "was pretrained with vocabulary"),
        ("vocabulary.min_count=500", "was pretrained with vocabulary"),
    ],
)
def test_foreign_pretraining_is_refused(
    place: Place, tmp_path: Path, capsys: Capture, change: str, words: str
) -> None:
    arguments = ("--out", tmp_path / "run", "--pretrained", place.run, "--set", change)
    assert hymate("train", "--config", place.file, *arguments) == 2
    assert words in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_run_is_never_overwritten(place: Place, capsys: Capture) -> None:
    before = (place.run / "model" / "weights.safetensors").stat().st_mtime_ns
    assert hymate("train", "--config", place.file, "--out", place.run) == 2
    assert "--resume" in one_line(capsys)
    arguments = ("--out", place.run, "--resume", "--set", "finetune.learning_rate=0.1")
    assert hymate("train", "--config", place.file, *arguments) == 2
    assert "was begun with finetune.learning_rate 0.002, now it is 0.1" in one_line(capsys)
    assert hymate("train", "--out", place.run, "--resume", "--json") == 0
    assert json.loads(capsys.readouterr().out) == place.report()
    assert (place.run / "model" / "weights.safetensors").stat().st_mtime_ns == before


def test_two_trainings_in_one_place_are_refused(place: Place, capsys: Capture) -> None:
    import fcntl

    with (place.run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert hymate("train", "--out", place.run, "--resume") == 2
    assert "another process is training here" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "--config: is missing"),
        (["train", "--out", "x", "--resume"], "x: holds no training to go on with"),
        (["train", "--config", "bad.yaml"], "did you mean 'finetune'?"),
        (["train", "--config", "none.yaml"], "none.yaml: no data is named"),
        (["train", "--config", "none.yaml", "--data", "nowhere"], "nowhere: no such folder"),
        (["train", "--config", "none.yaml", "--set", "rounds"], "is not KEY=VALUE"),
        (["train", "--config", "twice.yaml"], "is also in 'hospital_1'"),
        (["train", "--config", "gru.yaml"], "set pretrain.rounds to 0"),
        (["predict", "--model", "nowhere", "--data", "d", "--out", "o"], "nowhere: holds no model"),
        (["predict", "--model", "RUN", "--data", "H", "--task", "gout", "--out", "o"], "--prediction-times"),
        (["predict", "--model", "RUN", "--data", "H", "--split", "all", "--out", "o"], "'all' is not one of"),
        (
            ["predict", "--model", "RUN", "--data", "H", "--prediction-times", "none.yaml", "--out", "o"],
            "cannot be read",
        ),
        (["evaluate", "--predictions", "nowhere"], "nowhere: no such file"),
        (["evaluate", "--predictions", "P", "--labels", "H"], "choose one with --task"),
        (["evaluate", "--predictions", "P", "--labels", "H", "--task", "length_of_stay"], "is no boolean"),
        (["evaluate", "--predictions", "times.parquet"], "column 'predicted_boolean_probability' is missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    hospital = place.hospital
    inputs = {
        "bad.yaml": "name: a\nfinetun: {}\n",
        "none.yaml": "name: a\n",
        "twice.yaml": f"name: a\ndata: [{hospital}, {hospital}]\n",
        "gru.yaml": f"name: a\ndata: {hospital}\nmodel: {{name: gru}}\n",
    }
    for name, text in inputs.items():
        (tmp_path / name).write_text(text)
    predictions = place.run / "predictions" / "held_out.parquet"
    pl.read_parquet(predictions).select("subject_id", "prediction_time").write_parquet("times.parquet")
    known = {"RUN": str(place.run), "H": str(hospital), "P": str(predictions)}
    assert hymate(*(known.get(word, word) for word in arguments)) == 2
    assert words in one_line(capsys)
    assert {path.name for path in tmp_path.iterdir()} == {*inputs, "times.parquet"}


def test_a_federated_studys_model_predicts_too(place: Place, tmp_path: Path) -> None:
    """The `model/` folder of a study's run directory, written by the coordinator's own code."""
    study = StudyConfig(name="federated", task=TaskConfig(), model=ModelConfig(d_model=8, attention_heads=2))
    vocabulary = Vocabulary.load(place.run / "vocabulary.json")
    model = build_model(study.model, vocabulary.size, vocabulary.static_width, 48.0, seed=4)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    save_study_model(tmp_path / "study", study, vocabulary, model, weights)
    loaded = load_model(tmp_path / "study")
    assert (loaded.name, loaded.task, loaded.vocabulary.hash) == ("federated", study.task, vocabulary.hash)
    out = tmp_path / "p.parquet"
    arguments = ("--model", tmp_path / "study", "--data", place.hospital, "--out", out)
    assert hymate("predict", *arguments) == 0
    assert len(pl.read_parquet(out)) == 60


def test_a_baseline_trains_and_predicts(place: Place, tmp_path: Path) -> None:
    change = ("model={name: gru, d_model: 8}", "pretrain.rounds=0", "finetune.rounds=1")
    settings = [word for each in change for word in ("--set", each)]
    assert hymate("train", "--config", place.file, "--out", tmp_path / "run", *settings) == 0
    assert not (tmp_path / "run" / "pretrained").exists()
    out = tmp_path / "p.parquet"
    assert hymate("predict", "--model", tmp_path / "run", "--data", place.hospital, "--out", out) == 0


def test_several_labels_from_a_cohort_to_figures(place: Place, tmp_path: Path, capsys: Capture) -> None:
    """A second label set, longer than three days, that every third stay lacks."""
    data = tmp_path / "data"
    shutil.copytree(place.hospital, data)
    days = pl.read_parquet(data / "labels" / "length_of_stay" / "*.parquet")
    long = (
        days.gather_every(3, offset=1)
        .vstack(days.gather_every(3, offset=2))
        .with_columns((pl.col("float_value") > 3).alias("boolean_value"))
    )
    (data / "labels" / "long_stay").mkdir()
    long.select("subject_id", "prediction_time", "boolean_value").write_parquet(
        data / "labels" / "long_stay" / "0.parquet"
    )
    task = "task={kind: multilabel, names: [in_hospital_mortality, long_stay]}"
    run = tmp_path / "run"
    arguments = ("--data", data, "--out", run, "--set", task)
    assert hymate("train", "--config", place.file, *arguments, "--pretrained", place.run) == 2
    assert "was pretrained with vocabulary" in one_line(capsys)  # of both hospitals
    assert hymate("train", "--config", place.file, *arguments, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    counts = [split["labels"] for split in report["data"]["splits"].values()]
    assert sum(labels["in_hospital_mortality"]["stays"] for labels in counts) == 60
    assert sum(labels["long_stay"]["stays"] for labels in counts) == 40
    assert len(report["finetuning"]["positive_weight"]) == 2
    held_out = report["evaluation"]["held_out"]
    assert held_out["labels"]["in_hospital_mortality"]["stays"] == 12
    assert held_out["labels"]["long_stay"]["stays"] < 12
    out = tmp_path / "p"
    assert hymate("predict", "--model", run, "--data", data, "--split", "held_out", "--out", out) == 0
    assert {path.name for path in out.iterdir()} == {"in_hospital_mortality.parquet", "long_stay.parquet"}
    arguments = ("--predictions", out / "long_stay.parquet", "--labels", data, "--task", "long_stay")
    capsys.readouterr()
    assert hymate("evaluate", *arguments, "--bootstrap", 20, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stays"] == held_out["labels"]["long_stay"]["stays"]
    assert found["brier"]["value"] == pytest.approx(
        held_out["labels"]["long_stay"]["brier"]["value"], rel=1e-5
    )
    assert hymate("predict", "--model", run, "--data", data, "--task", "long_stay", "--out", out) == 2
    assert "leave --task out" in one_line(capsys)


def test_a_number_from_a_cohort_to_figures(place: Place, tmp_path: Path, capsys: Capture) -> None:
    run, out = tmp_path / "run", tmp_path / "p.parquet"
    task = "task={kind: regression, name: length_of_stay}"
    arguments = ("--out", run, "--set", task, "--pretrained", place.run, "--json")
    assert hymate("train", "--config", place.file, *arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["finetuning"]["criterion"] == "root mean squared error"
    days = pl.read_parquet(place.hospital / "labels" / "length_of_stay" / "*.parquet")
    assert hymate("predict", "--model", run, "--data", place.hospital, "--out", out) == 0
    table = pl.read_parquet(out)
    assert table.columns == ["subject_id", "prediction_time", "float_value", "predicted_float_value"]
    assert sorted(table["float_value"]) == sorted(days["float_value"])
    known = table["float_value"].to_numpy()
    assert abs(table["predicted_float_value"].to_numpy().mean() - known.mean()) < known.std()
    capsys.readouterr()
    file = run / "predictions" / "held_out.parquet"
    assert hymate("evaluate", "--predictions", file, "--bootstrap", 20, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    held_out = report["evaluation"]["held_out"]
    assert {key: found[key] for key in held_out} == held_out
    assert held_out["mae"]["value"] > 0
    assert hymate("evaluate", "--predictions", file, "--bootstrap", 0) == 0
    assert "mean absolute error" in capsys.readouterr().out


def test_a_number_is_no_boolean_label(place: Place, tmp_path: Path, capsys: Capture) -> None:
    arguments = ("--out", tmp_path / "run", "--set", "task.name=length_of_stay")
    assert hymate("train", "--config", place.file, *arguments) == 2
    assert "set task.kind to regression" in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_help_has_an_example_and_imports_nothing_heavy(command: str) -> None:
    script = (
        "import sys; from hymate.cli import app; from hymate.command import run_command; "
        f"code = run_command(app, 'hymate', [{command!r}, '--help']); "
        "heavy = {'torch', 'polars', 'numpy', 'pyarrow', 'sklearn'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"hymate {command} --" in done.stdout

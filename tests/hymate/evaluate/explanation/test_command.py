"""`hymate explain`: the files that come out, what may leave the hospital, and what is refused."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hymate.cli import app
from hymate.command import run_command
from hymate.config import TaskConfig
from hymate.errors import InputFault
from hymate.evaluate.bootstrap import BootstrapSettings
from hymate.evaluate.explanation.local import explain_stay
from hymate.evaluate.explanation.overall import OverallSettings, explain_overall
from hymate.evaluate.explanation.palette import LIGHT, as_svg
from hymate.evaluate.explanation.picture import draw_stay, effect
from hymate.evaluate.explanation.stays import descriptions, stay_of
from hymate.evaluate.explanation.units import measured_value
from hymate.model.config import GRUConfig
from hymate.train.prediction import predicted_values
from hymate.train.saved_model import SavedModel, Scale, new_model, save_model
from tests.hymate.evaluate.explanation.conftest import Trained

Capture = pytest.CaptureFixture[str]
FILES = {"explanation.json", "explanation.png", "explanation.svg", "explanation.html"}
QUICK = ("--stays", 30, "--bootstrap", 50)


def hymate(*arguments: object) -> int:
    return run_command(app, "hymate", ["explain", *map(str, arguments)])


def one_line(capsys: Capture) -> str:
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


def content(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "explanation.json").read_text())
    return found


def subject(trained: Trained) -> int:
    return int(trained.store.subject_id[trained.store.rows("held_out")[0]])


def self_contained(page: str) -> bool:
    return not re.search(r"""(src|href|srcset)=["'](?!data:)|@import|<script|url\(""", page)


def test_one_stay(trained: Trained, tmp_path: Path, capsys: Capture) -> None:
    out, who = tmp_path / "one", subject(trained)
    assert hymate("--model", trained.run, "--data", trained.data, "--subject", who, "--out", out) == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert out.stat().st_mode & 0o077 == 0  # a patient's record
    told = content(out)
    assert "for the hospital only" in told["note"]
    row = trained.store.rows("held_out")[:1]
    predicted = predicted_values(trained.saved, trained.store, row)[0, 0]
    assert told["probability"] == pytest.approx(predicted, abs=1e-5)
    total = math.fsum(each["total"] for each in (*told["features"], *told["static"]))
    assert total == pytest.approx(told["output"] - told["reference"], abs=2e-3)
    observations = [each for feature in told["features"] for each in feature["observations"]]
    assert len(observations) == trained.store.lengths[row[0]]
    assert math.fsum(each["attention"] for each in observations) == pytest.approx(1.0, abs=1e-4)
    sizes = [abs(feature["total"]) for feature in told["features"]]
    assert sizes == sorted(sizes, reverse=True)
    page = (out / "explanation.html").read_text()
    assert self_contained(page)
    assert page.count("data:image/svg+xml") == 2  # light and dark
    assert "For the hospital only" in page
    assert "Attention says where the model read, not why" in page
    assert told["features"][0]["title"] in page
    assert "for the hospital only" in capsys.readouterr().err


def test_values_are_those_of_the_record(trained: Trained) -> None:
    import polars as pl

    who = subject(trained)
    explained = explain_stay(trained.saved, trained.store, int(trained.store.rows("held_out")[0]))
    events = pl.concat([pl.read_parquet(path) for path in trained.data.glob("data/**/*.parquet")])
    theirs = events.filter((pl.col("subject_id") == who) & pl.col("time").is_not_null())
    for feature in explained.features:
        recorded = theirs.filter(pl.col("code") == feature.code)["numeric_value"].to_list()
        shown = [each.value for each in feature.observations]
        assert sorted(shown) == pytest.approx(sorted(recorded), rel=1e-4), feature.code  # type: ignore[type-var]
    age = next(each for each in explained.static if each.code == "AGE")
    known = events.filter((pl.col("subject_id") == who) & (pl.col("code") == "AGE"))["numeric_value"][0]
    assert age.value == pytest.approx(known, rel=1e-4)


def test_the_picture_says_which_way_by_colour_and_shape(trained: Trained) -> None:
    explained = explain_stay(
        trained.saved, trained.store, int(trained.store.rows("held_out")[0]),
        described=descriptions(trained.data),
    )  # fmt: skip
    svg = as_svg(draw_stay(explained, LIGHT)).decode()
    assert LIGHT.towards in svg
    assert LIGHT.away in svg
    assert explained.features[0].title in svg
    assert f"{effect(explained.features[0].total, True)}" in svg
    assert svg == as_svg(draw_stay(explained, LIGHT)).decode()


def test_a_stay_without_a_label(trained: Trained) -> None:
    """Named by its prediction time: the same record a minute later is hardly another answer."""
    who = subject(trained)
    answers: list[float] = []
    times: list[datetime] = []
    for minutes in (None, 0, 1):
        when = None if minutes is None else times[0] + timedelta(minutes=minutes)
        with stay_of(trained.saved, trained.data, who, when) as store:
            assert len(store) == 1
            explained = explain_stay(trained.saved, store, 0)
            assert explained.subject_id == who
            answers.append(explained.output)
            times.append(explained.prediction_time)
    assert answers[0] == answers[1]
    assert times[2] - times[0] == timedelta(minutes=1)
    assert answers[2] == pytest.approx(answers[0], abs=0.3)


def test_over_many_stays(trained: Trained, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "many"
    common = ("--model", trained.run, "--data", trained.data, "--global", *QUICK)
    assert hymate(*common, "--out", out) == 0
    assert {path.name for path in out.iterdir()} == FILES
    told = content(out)
    assert told["stays"] == 30
    assert len(told["edges"]) == 9
    for each in (*told["features"], *told["static"]):
        figure = each["importance"]
        assert figure["lower"] <= figure["value"] <= figure["upper"]
    check = told["check"]
    assert check["top"]["value"] > check["random"]["value"]
    text = (out / "explanation.html").read_text()
    assert self_contained(text)
    assert "may leave the hospital" in text
    everything = text + (out / "explanation.json").read_text() + (out / "explanation.svg").read_text()
    everything += capsys.readouterr().err
    for who in trained.store.subject_id[trained.store.rows("held_out")]:
        assert str(who) not in everything


def overall(trained: Trained, min_cell: int, stays: int = 40) -> dict[str, Any]:
    settings = OverallSettings(stays=stays, min_cell=min_cell, bootstrap=BootstrapSettings(0))
    return explain_overall(trained.saved, trained.store, settings).to_json()


def test_nothing_of_few_subjects_is_shown(trained: Trained) -> None:
    """Counted here from the store itself."""
    everything, careful = overall(trained, 1), overall(trained, 36)
    drawn = np.random.default_rng(0).permutation(trained.store.rows("held_out"))[:40]
    has = dict.fromkeys(trained.saved.vocabulary.index, 0)
    for row in drawn:
        place = slice(trained.store.offset[row], trained.store.offset[row + 1])
        for code, index in trained.saved.vocabulary.index.items():
            has[code] += bool((trained.store.code[place] == index).any())
    assert {each["code"] for each in everything["features"]} == set(has)
    assert {each["code"]: each["subjects"] for each in everything["features"]} == has
    shown = {each["code"]: each for each in careful["features"]}
    assert set(shown) == {code for code, people in has.items() if people >= 36}
    assert 0 < len(shown) < len(has)
    for code, each in shown.items():
        # All but a few: how many would tell who has not.
        assert each["subjects"] == (40 if has[code] == 40 else None)
    cells = [cell for each in careful["features"] for cell in each["by_time"]]
    assert None in cells
    assert careful["withheld"] == len(everything["features"]) + len(everything["static"]) - len(shown) - len(
        careful["static"]
    )


def test_too_few_subjects_in_all_is_refused(trained: Trained) -> None:
    with pytest.raises(InputFault, match="fewer than 41 subjects"):
        overall(trained, 41)


def test_time_is_cut_into_equal_intervals(trained: Trained) -> None:
    """One interval holds what all together hold."""
    settings = OverallSettings(stays=20, bin_hours=48.0, min_cell=1, bootstrap=BootstrapSettings(0))
    whole = explain_overall(trained.saved, trained.store, settings)
    assert whole.edges == (0.0, 48.0)
    for each in whole.features:
        assert list(each.by_time) == pytest.approx([each.importance.value])


def test_a_baseline_gets_integrated_gradients_only(trained: Trained, tmp_path: Path, capsys: Capture) -> None:
    config = GRUConfig(d_model=8)
    saved = SavedModel(
        "gru", new_model(config, trained.saved.task, trained.saved.vocabulary, 0), config, trained.saved.task,
        trained.saved.vocabulary,
    )  # fmt: skip
    save_model(tmp_path / "gru" / "model", saved)
    out = tmp_path / "out"
    common = ("--model", tmp_path / "gru", "--data", trained.data, "--out", out)
    assert hymate(*common, "--subject", subject(trained)) == 0
    assert "model gru has no fusion attention: integrated gradients only" in capsys.readouterr().err
    told = content(out)
    assert "attention_caveat" not in told
    assert told["features"][0]["observations"][0]["attention"] is None
    assert "it has no attention to show" in (out / "explanation.html").read_text()
    assert hymate(*common, "--global", "--stays", 10, "--bootstrap", 0) == 0


def test_a_number_is_explained_in_its_own_unit(trained: Trained) -> None:
    task = TaskConfig(name="length_of_stay", kind="regression")
    saved = replace(trained.saved, task=task, scale=Scale(7.0, 3.0))
    row = int(trained.store.rows("held_out")[0])
    days = explain_stay(saved, trained.store, row)
    odds = explain_stay(trained.saved, trained.store, row)
    assert days.output == pytest.approx(7.0 + 3.0 * odds.output)
    assert days.features[0].total == pytest.approx(3.0 * odds.features[0].total)
    assert days.to_json()["unit"] == "unit of the label"
    assert "probability" not in days.to_json()
    assert "Expected length of stay" in as_svg(draw_stay(days)).decode()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--subject", 7), r"--subject 7: is none of the 1,000 subjects in .*; check the number"),
        (("--subject", "WHO", "--global"), "are both given"),
        ((), "are both missing"),
        (("--subject", "WHO", "--label", "x"), "did not learn 'x'; it learned in_hospital_mortality"),
        (("--subject", "WHO", "--prediction-time", "1990-01-01"), "fewer than 1 observations in the 48 h"),
        (("--global", "--split", "held_out", "--min-cell", 5000), "holds fewer than 5000 subjects"),
    ],
)
def test_what_cannot_be_explained_is_one_line(
    trained: Trained, tmp_path: Path, capsys: Capture, arguments: tuple[object, ...], words: str
) -> None:
    given = [subject(trained) if each == "WHO" else each for each in arguments]
    out = tmp_path / "out"
    assert hymate("--model", trained.run, "--data", trained.data, "--out", out, *given) == 2
    assert re.search(words, one_line(capsys))
    assert not out.exists()


def test_a_missing_part_is_named(trained: Trained, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "captum" else find(name, *rest)
    )
    assert hymate("--model", trained.run, "--data", trained.data, "--subject", 1) == 2
    assert (
        "needs captum, which is not installed; pip install '.[explain]' in the project's folder"
        in one_line(capsys)
    )


def test_help_says_what_may_leave_the_hospital(capsys: Capture) -> None:
    assert hymate("--help") == 0
    text = " ".join(re.sub(r"[^\w.,:;()-]+", " ", capsys.readouterr().out).split())
    assert "the output of --subject never" in text
    assert "--global may" in text


@pytest.mark.parametrize("scaling", ["standard", "quantile"])
def test_scores_come_back_as_what_was_measured(trained: Trained, scaling: str) -> None:
    from hymate.data.scaling import Scaler, VocabularyEntry

    knots = tuple(float(x) for x in np.linspace(40.0, 200.0, 29)) if scaling == "quantile" else ()
    entry = VocabularyEntry("HR", "bpm", 80.0, 12.0, True, low=50.0, high=150.0, knots=knots)
    given = np.array([80.0, 92.5, 300.0], np.float32)
    score, _ = Scaler((entry,), None).scaled(given, np.ones(3, np.int32))
    back = [measured_value(entry, float(each)) for each in score]
    assert back == pytest.approx([80.0, 92.5, 150.0], rel=1e-5)
    assert measured_value(replace(entry, numeric=False), 0.0) is None


def test_the_model_is_left_in_its_mode(trained: Trained) -> None:
    trained.saved.model.train()
    try:
        torch.manual_seed(0)
        row = int(trained.store.rows("held_out")[0])
        first, second = (explain_stay(trained.saved, trained.store, row).output for _ in range(2))
        assert first == second  # no dropout while explaining
        assert trained.saved.model.training
    finally:
        trained.saved.model.eval()

"""Labels by ACES equal those worked out by hand, for every shipped task; the rest runs on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from meds.schema import LabelSchema

from hymate.config import TaskConfig, VocabularyConfig
from hymate.data.labelling import label_dataset
from hymate.data.meds import MedsDataset
from hymate.data.statistics import code_statistics
from hymate.data.store import prepare_store
from hymate.data.tasks import cut_windows
from hymate.data.vocabulary import build_vocabulary
from tests.hymate.data.labelled_by_hand import (
    CASES,
    MORTALITY,
    TASKS,
    by_hand,
    hospital,
    task_file,
    written,
)
from tests.hymate.data.mimic_style import (
    ADMITTED,
    DEATH,
    DIED,
    HOME,
    moment,
    write_meds,
)


@pytest.mark.parametrize(("task", "cases", "column"), CASES)
def test_labels_equal_those_worked_out_by_hand(
    tmp_path: Path, task: str, cases: dict[int, Any], column: int
) -> None:
    meds = hospital(tmp_path / "meds", cases)
    figures = label_dataset(meds, TASKS / f"{task}.yaml")
    expected = by_hand(cases, column)
    assert written(meds, task) == expected
    assert figures["task"] == task
    assert figures["labels"] == len(expected)
    assert figures["positive"] == sum(expected.values())


def test_a_death_known_by_day_only_and_the_stricter_variant(tmp_path: Path) -> None:
    """Home at noon, dead in the evening, written at 00:00: the trap of the files' header, and its way out."""
    at_home = [(0, ADMITTED), (76, HOME), (64, DEATH)]  # 64 h after 08:00 is a midnight
    in_hospital = [(0, ADMITTED), (60, DEATH), (62, DIED)]
    late = [(0, ADMITTED), (60, DIED), (62, DEATH)]
    meds = write_meds(tmp_path / "meds", {1: at_home, 2: in_hospital, 3: late})
    label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    assert list(written(meds, "in_hospital_mortality_24h").values()) == [True, True, True]
    windows = yaml.safe_load((TASKS / "in_hospital_mortality_24h.yaml").read_text())["windows"]
    windows["target"] |= {"label": "discharged_dead", "end": "start -> discharge"}
    label_dataset(meds, task_file(tmp_path, windows=windows), name="stricter")
    assert list(written(meds, "stricter").values()) == [False, True, True]


def test_every_shipped_task_is_tested() -> None:
    assert {path.stem for path in TASKS.glob("*.yaml")} == {task for task, _, _ in CASES}
    for path in TASKS.glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["metadata"]["hymate"]["name"] == path.stem


def test_files_are_labels_as_meds_wants_them(tmp_path: Path) -> None:
    """One file a shard, valid, without the empty value columns that ACES writes."""
    meds = hospital(tmp_path / "meds", MORTALITY)
    label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    folder = meds / "labels" / "in_hospital_mortality_24h"
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["held_out/0.parquet", "train/0.parquet", "train/1.parquet"]
    for name in files:
        table = pq.read_table(folder / name)
        LabelSchema.validate(table)
        assert table.column_names == ["subject_id", "prediction_time", "boolean_value"]
        assert table.num_rows


def test_figures_say_what_was_left_out_and_why(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    figures = label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    # Admissions: subjects 1 to 15 and 17, two of subject 13 and of subject 14.
    assert figures["triggers"] == 18
    assert figures["labels"] == 13
    assert figures["left_out"] == {
        "window gap wants no admission": 1,  # 13
        "window gap wants no discharge": 3,  # 4, 5, 6
        "window gap wants no death": 1,  # 4
        # 12 has no end; what is said of the others adds up, as 4 fails twice.
    }
    held_out = [key for key in by_hand(MORTALITY, 1) if key[0] % 3 == 1]
    assert figures["splits"]["held_out"] == {
        "labels": len(held_out),
        "positive": sum(by_hand(MORTALITY, 1)[key] for key in held_out),
    }
    assert list(figures["splits"]) == ["train", "held_out"]


def test_an_end_that_never_comes_is_said(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", {number: MORTALITY[number] for number in (1, 2, 12)})
    figures = label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    assert figures["left_out"] == {"a window runs to an event that is not on record": 1}


@pytest.mark.parametrize(("task", "cases", "column"), CASES)
def test_a_store_is_prepared_from_the_labels(
    tmp_path: Path, task: str, cases: dict[int, Any], column: int
) -> None:
    """The whole way: labels, windows, vocabulary, store."""
    meds = hospital(tmp_path / "meds", cases)
    label_dataset(meds, TASKS / f"{task}.yaml")
    dataset = MedsDataset.open(meds)
    config = TaskConfig(name=task, lookback_hours=48)
    windows = cut_windows(dataset, config)
    vocabulary = build_vocabulary(
        {"site": code_statistics(windows, dataset.units())}, VocabularyConfig(min_count=2)
    )
    store = prepare_store(tmp_path / "store", windows, vocabulary, config)
    expected = by_hand(cases, column)
    assert len(store) == len(expected)
    assert sorted(store.label.tolist()) == sorted(float(value) for value in expected.values())
    # Subjects 13 and 14 come back with a rare code and nothing else.
    assert (store.lengths > 0).sum() >= len(store) - 2
    # No input is later than its prediction, and none is the outcome.
    assert store.time.max() <= 48.0
    assert not [
        code for code in vocabulary.index if code.startswith(("HOSPITAL_DISCHARGE//DIED", "MEDS_DEATH"))
    ]
    assert "GENDER" in "".join(store.header.static_names)


def test_codes_stored_as_a_dictionary_and_a_shard_without_triggers(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    for path in (meds / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        codes = table.column("code").combine_chunks().dictionary_encode()
        pq.write_table(table.set_column(table.column_names.index("code"), "code", codes), path)
    quiet = write_meds(tmp_path / "quiet", {90: [(0, "ED_REGISTRATION")], 91: [(0, "ED_OUT")]})
    (quiet / "data" / "train" / "0.parquet").rename(meds / "data" / "train" / "2.parquet")
    figures = label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    assert written(meds, "in_hospital_mortality_24h") == by_hand(MORTALITY, 1)
    assert figures["labels"] == 13
    assert not (meds / "labels" / "in_hospital_mortality_24h" / "train" / "2.parquet").exists()


def test_another_place_another_name_and_no_splits(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    (meds / "metadata" / "subject_splits.parquet").unlink()
    figures = label_dataset(
        meds, TASKS / "in_hospital_mortality_24h.yaml", out=tmp_path / "elsewhere", name="death-24"
    )
    assert "splits" not in figures
    assert not (meds / "labels").exists()
    files = list((tmp_path / "elsewhere" / "labels" / "death-24").rglob("*.parquet"))
    assert sum(pq.read_metadata(path).num_rows for path in files) == 13


def test_a_subject_in_no_split_is_counted(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    path = meds / "metadata" / "subject_splits.parquet"
    pq.write_table(pq.read_table(path).filter(pc.field("subject_id") != 2), path)
    figures = label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    assert figures["splits"]["no split"] == {"labels": 1, "positive": 1}


@pytest.mark.parametrize("task", ["in_hospital_mortality_24h", "in_hospital_mortality_48h"])
def test_no_label_is_predicted_after_the_fact(tmp_path: Path, task: str) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    label_dataset(meds, TASKS / f"{task}.yaml")
    for (subject, time), died in written(meds, task).items():
        deaths = [moment(when) for when, code in MORTALITY[subject][0] if code in (DEATH, DIED)]
        assert all(death > time for death in deaths)
        assert deaths or not died

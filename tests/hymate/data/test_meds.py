"""MEDS data sets: what is written validates and comes back; what would spoil training is refused."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from meds.schema import CodeMetadataSchema, DataSchema, LabelSchema, SubjectSplitSchema

from hymate.data.meds import EVENT_SCHEMA, SPLITS, MedsDataset, write_dataset
from hymate.errors import InputFault

NOON = dt.datetime(2020, 2, 29, 12)
HOUR = dt.timedelta(hours=1)


def events(*rows: tuple[int, dt.datetime | None, str, float | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row")


def write_small(root: Path) -> None:
    write_dataset(
        root,
        name="small",
        events=events(
            (7, NOON, "HR", 80.0),
            (7, None, "GENDER//F", None),
            (3, NOON + HOUR, "HR", 61.0),
            (3, NOON, "Temp", 36.5),
            (3, NOON, "HR", 60.0),
            (5, NOON, "HR", 70.0),
        ),
        splits=pl.DataFrame({"subject_id": [7, 3, 5], "split": ["tuning", "train", "held_out"]}),
        labels={
            "death": pl.DataFrame(
                {"subject_id": [7, 3], "prediction_time": [NOON, NOON], "boolean_value": [True, False]}
            ),
            "days": pl.DataFrame({"subject_id": [5], "prediction_time": [NOON], "float_value": [2.5]}),
        },
        codes=pl.DataFrame(
            {
                "code": ["Temp", "HR", "GENDER//F"],
                "unit": ["°C", "bpm", None],
                "description": ["t", "h", None],
            }
        ),
    )


@pytest.fixture
def small(tmp_path: Path) -> MedsDataset:
    write_small(tmp_path / "small")
    return MedsDataset.open(tmp_path / "small")


def test_round_trip(small: MedsDataset) -> None:
    assert small.name == "small"
    assert small.events().equals(
        events(
            (3, NOON, "Temp", 36.5),  # a tie keeps the order it was given in
            (3, NOON, "HR", 60.0),
            (3, NOON + HOUR, "HR", 61.0),
            (5, NOON, "HR", 70.0),
            (7, None, "GENDER//F", None),
            (7, NOON, "HR", 80.0),
        )
    )
    assert small.splits().rows() == [(3, "train"), (5, "held_out"), (7, "tuning")]
    assert small.tasks() == ["days", "death"]
    assert small.labels("death").rows() == [(3, NOON, 0.0), (7, NOON, 1.0)]
    assert small.labels("days").rows() == [(5, NOON, 2.5)]
    assert small.labels("days").schema["label"] == pl.Float32
    assert small.units() == {"HR": "bpm", "Temp": "°C"}


def test_what_is_written_is_meds(small: MedsDataset) -> None:
    for split in SPLITS:
        DataSchema.validate(pq.read_table(small.root / "data" / split / "0.parquet"))
    LabelSchema.validate(pq.read_table(small.root / "labels" / "death" / "train.parquet"))
    CodeMetadataSchema.validate(pq.read_table(small.root / "metadata" / "codes.parquet"))
    SubjectSplitSchema.validate(pq.read_table(small.root / "metadata" / "subject_splits.parquet"))
    metadata = json.loads((small.root / "metadata" / "dataset.json").read_text())
    assert metadata["dataset_name"] == "small"
    assert metadata["meds_version"].startswith("0.4")


def test_an_occupied_folder_stays_as_it_is(small: MedsDataset) -> None:
    before = {path: path.read_bytes() for path in small.root.rglob("*") if path.is_file()}
    with pytest.raises(InputFault, match="exists already"):
        write_small(small.root)
    assert {path: path.read_bytes() for path in small.root.rglob("*") if path.is_file()} == before
    assert [path.name for path in small.root.parent.iterdir()] == ["small"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": pl.DataFrame({"subject_id": [2], "split": ["train"]})}, "subject_id 1 is in events"),
        ({"codes": pl.DataFrame({"code": ["RR"]})}, "code 'HR' is in events"),
    ],
)
def test_tables_that_contradict_each_other_are_not_written(
    tmp_path: Path, change: dict[str, pl.DataFrame], message: str
) -> None:
    tables: dict[str, Any] = {
        "events": events((1, NOON, "HR", 80.0)),
        "splits": pl.DataFrame({"subject_id": [1], "split": ["train"]}),
        "labels": {},
        "codes": pl.DataFrame({"code": ["HR"]}),
    }
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path / "x", name="x", **{**tables, **change})
    assert list(tmp_path.iterdir()) == []


def test_missing_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="no such folder"):
        MedsDataset.open(tmp_path / "nowhere")
    with pytest.raises(InputFault, match="is not a MEDS data set"):
        MedsDataset.open(tmp_path)


def test_files_in_any_layout_and_encoding_are_read(tmp_path: Path) -> None:
    """Other writers shard differently, write large_string or dictionaries, and need no values column."""
    (tmp_path / "data" / "deep").mkdir(parents=True)
    first = events((9, NOON, "A", 1.0)).to_arrow()
    second = events((4, NOON, "B", None)).drop("numeric_value").to_arrow()
    second = second.set_column(2, "code", second["code"].cast(pa.string()).dictionary_encode())
    pq.write_table(first, tmp_path / "data" / "deep" / "0.parquet")
    pq.write_table(second, tmp_path / "data" / "1.parquet")
    dataset = MedsDataset.open(tmp_path)
    assert dataset.events().equals(events((4, NOON, "B", None), (9, NOON, "A", 1.0)))
    assert dataset.name == tmp_path.name
    assert dataset.units() == {}
    assert dataset.tasks() == []


GOOD = events((1, None, "AGE", 60.0), (1, NOON, "HR", 80.0), (1, NOON, "HR", 81.0), (2, NOON, "HR", 70.0))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (GOOD.drop("code"), "column 'code' is missing"),
        (GOOD.cast({"subject_id": pl.Int32}), "column 'subject_id' is int32, MEDS wants int64"),
        (GOOD.cast({"time": pl.Datetime("ns")}), r"column 'time' is timestamp\[ns\], MEDS wants"),
        (GOOD.cast({"numeric_value": pl.Int64}), "column 'numeric_value' is int64"),
        (
            GOOD.with_columns(code=pl.when(pl.col("subject_id") == 1).then("code")),
            r"row 3 \(row group 1\): column 'code' is null",
        ),
        (
            GOOD[[0, 1, 3, 2]],
            r"row 3 \(row group 1\): subject 1 comes back after another subject's rows",
        ),
        (
            pl.concat([GOOD[:3], events((1, NOON - HOUR, "HR", 1.0))]),
            r"row 3 \(row group 1\): subject 1 goes back in time \(2020-02-29 11:00:00 after 2020-02-29 12:",
        ),
        (GOOD[[1, 0]], r"row 1 \(row group 0\): subject 1 goes back in time \(no time after"),
        (
            GOOD.with_columns(numeric_value=pl.lit(float("nan"), pl.Float32)),
            r"row 0 \(row group 0\): subject 1 has value nan for code 'AGE'",
        ),
        (
            pl.concat([GOOD, events((3, NOON, "Temp", float("inf")))]),
            r"row 4 \(row group 1\): subject 3 has value inf for code 'Temp'",
        ),
    ],
)
def test_broken_events_are_named(tmp_path: Path, table: pl.DataFrame, message: str) -> None:
    path = tmp_path / "data" / "0.parquet"
    path.parent.mkdir()
    pq.write_table(table.to_arrow(), path, row_group_size=3)
    with pytest.raises(InputFault, match=message) as caught:
        MedsDataset.open(tmp_path).events()
    assert caught.value.where == str(path)


def test_a_subject_in_two_files(small: MedsDataset) -> None:
    extra = small.root / "data" / "train" / "1.parquet"
    pq.write_table(events((7, NOON, "HR", 1.0)).to_arrow(), extra)
    with pytest.raises(InputFault, match=r"subject 7 is also in data/train/1.parquet"):
        small.events()


def test_a_file_that_is_no_parquet(small: MedsDataset) -> None:
    path = small.root / "data" / "train" / "0.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputFault, match="is not a readable parquet file") as caught:
        small.events()
    assert caught.value.where == str(path)
    assert "\n" not in str(caught.value)


def overwrite(path: Path, table: pl.DataFrame) -> None:
    pq.write_table(table.to_arrow(), path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, "train"), (2, "test")], "subject 2 is in split 'test'; use train, tuning, held_out"),
        ([(1, "train"), (2, "train"), (1, "held_out")], r"subject 1 is listed 2 times \(train, held_out\)"),
    ],
)
def test_broken_splits(small: MedsDataset, rows: list[tuple[int, str]], message: str) -> None:
    schema = {"subject_id": pl.Int64, "split": pl.String}
    overwrite(
        small.root / "metadata" / "subject_splits.parquet", pl.DataFrame(rows, schema=schema, orient="row")
    )
    with pytest.raises(InputFault, match=message):
        small.splits()


def test_missing_splits(small: MedsDataset) -> None:
    (small.root / "metadata" / "subject_splits.parquet").unlink()
    with pytest.raises(InputFault, match=r"subject_splits\.parquet: no such file"):
        small.splits()


def test_an_unknown_task_names_those_that_exist(small: MedsDataset) -> None:
    with pytest.raises(InputFault, match="no labels for task 'mortality'; tasks that exist: days, death"):
        small.labels("mortality")


LABELS = pl.DataFrame(
    {"subject_id": [1, 2], "prediction_time": [NOON, NOON]},
    schema={"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")},
)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (LABELS, "holds neither boolean_value nor float_value"),
        (LABELS.with_columns(boolean_value=True, float_value=pl.lit(1.0, pl.Float32)), "holds both"),
        (LABELS.with_columns(boolean_value=1), "column 'boolean_value' is int32, MEDS wants bool"),
        (LABELS.with_columns(float_value=pl.lit("inf").cast(pl.Float32)), r"row 0 .*subject 1 has label inf"),
        (
            LABELS.with_columns(boolean_value=pl.Series([True, None])),
            r"row 1 \(row group 0\): subject 2 has label None",
        ),
        (
            LABELS.with_columns(boolean_value=True, subject_id=pl.lit(5, pl.Int64)),
            "subject 5 has more than one label at 2020-02-29 12:00:00",
        ),
    ],
)
def test_broken_labels(small: MedsDataset, table: pl.DataFrame, message: str) -> None:
    path = small.root / "labels" / "broken" / "nested" / "0.parquet"
    path.parent.mkdir(parents=True)
    overwrite(path, table)
    with pytest.raises(InputFault, match=message):
        small.labels("broken")


def test_labels_as_aces_writes_them(small: MedsDataset) -> None:
    """ACES adds the other kinds of value as empty columns."""
    path = small.root / "labels" / "aces" / "0.parquet"
    path.parent.mkdir()
    overwrite(
        path,
        LABELS.with_columns(
            boolean_value=True,
            integer_value=pl.lit(None, pl.Int64),
            float_value=pl.lit(None, pl.Float64),
            categorical_value=pl.lit(None, pl.String),
        ),
    )
    assert small.labels("aces").rows() == [(1, NOON, 1.0), (2, NOON, 1.0)]


def test_metadata_that_is_no_json(small: MedsDataset) -> None:
    (small.root / "metadata" / "dataset.json").write_text("{")
    with pytest.raises(InputFault, match=r"dataset.json: is not a JSON object"):
        _ = small.name

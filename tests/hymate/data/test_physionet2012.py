"""PhysioNet 2012: every rule of the protocol on hand-written records, every fault, and the real files."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hymate.data.challenge_codes import PARAMETERS
from hymate.data.meds import SPLITS, MedsDataset
from hymate.data.physionet2012 import ADMISSION, TASKS, prepare_physionet2012
from hymate.errors import InputFault
from tests.hymate.data.challenge import HEADER, OUTCOMES_HEADER, ordinary, record, write_set


def prepare(raw: Path, out: Path, **options: Any) -> dict[str, Any]:
    return prepare_physionet2012(raw, out, **{"site_by": "none", **options})


def events_of(
    tmp_path: Path, text: str, record_id: int = 1
) -> tuple[list[tuple[object, ...]], dict[str, Any]]:
    """(minute or None, code, value) of one record among ordinary ones, and the summary."""
    write_set(tmp_path / "raw", "a", {record_id: text, **ordinary(100, 2)})
    summary = prepare(tmp_path / "raw", tmp_path / "out")
    events = MedsDataset.open(tmp_path / "out" / "all").events().filter(pl.col("subject_id") == 1)
    minute = (pl.col("time") - ADMISSION).dt.total_minutes()
    return events.select(minute, "code", "numeric_value").rows(), summary


def test_one_record_becomes_these_events(tmp_path: Path) -> None:
    text = record(1, "00:07,HR,80\n00:07,pH,7.25\n01:00,HR,79\n48:00,Weight,81.5\n", gender=1, weight="82")
    text = text.replace("00:00,Height,-1", "00:00,Height,175.3")
    rows, _ = events_of(tmp_path, text)
    assert sorted(rows[:4], key=str) == [
        (None, "AGE", 54.0),
        (None, "GENDER//M", None),
        (None, "HEIGHT", pytest.approx(175.3, abs=1e-4)),
        (None, "ICU_TYPE//medical", None),
    ]
    assert rows[4:] == [
        (0, "Weight", 82.0),
        (7, "HR", 80.0),
        (7, "pH", 7.25),
        (60, "HR", 79.0),
        (2880, "Weight", 81.5),
    ]


def test_negative_values_are_missing(tmp_path: Path) -> None:
    rows, summary = events_of(tmp_path, record(1, "00:07,Temp,-17.8\n01:00,HR,0\n02:00,HR,70\n", gender=-1))
    codes = [code for _, code, _ in rows]
    assert sorted(codes) == ["AGE", "HR", "HR", "ICU_TYPE//medical"]
    # Three records have neither height nor admission weight.
    assert summary["left_out"]["static values missing (negative)"] == 3 + 1
    assert summary["left_out"]["dynamic values missing (negative)"] == 3 + 1


def test_exact_duplicates_are_kept_once(tmp_path: Path) -> None:
    rows, summary = events_of(
        tmp_path, record(1, "00:07,HR,80\n00:07,HR,80.0\n00:07,HR,81\n00:08,HR,80\n00:07,HR,80\n")
    )
    assert [row for row in rows if row[1] == "HR"] == [(7, "HR", 80.0), (7, "HR", 81.0), (8, "HR", 80.0)]
    assert summary["left_out"]["exact duplicates"] == 2


@pytest.mark.parametrize(("rows", "kept"), [("", False), ("00:10,,1.8\n", False), ("00:10,HR,80\n", True)])
def test_stays_with_at_most_five_rows_are_left_out(tmp_path: Path, rows: str, kept: bool) -> None:
    """The five descriptors count, the RecordID row and rows without a parameter do not."""
    events, summary = events_of(tmp_path, record(1, rows))
    assert bool(events) == kept
    assert summary["total"]["stays"] == 2 + kept
    assert summary["left_out"]["stays with fewer than 6 rows"] == 1 - kept
    assert summary["left_out"]["rows without a parameter"] == rows.count(",,")
    labels = MedsDataset.open(tmp_path / "out" / "all").labels("in_hospital_mortality")
    assert (1 in labels["subject_id"]) == kept


def test_observations_after_48_hours_are_left_out(tmp_path: Path) -> None:
    rows, summary = events_of(tmp_path, record(1, "48:00,HR,80\n48:01,HR,90\n"))
    assert [row for row in rows if row[1] == "HR"] == [(2880, "HR", 80.0)]
    assert summary["left_out"]["observations after 48 h"] == 1


def test_labels(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_set(raw, "a", ordinary(1, 4))
    rows = "1,0,1,5,-1,0\n2,-1,-1,-1,3,1\n3,9,-1,0,40,0\n4,9,8,12,-1,0\n999,1,1,1,1,1\n"
    (raw / "Outcomes-a.txt").write_text(OUTCOMES_HEADER + rows)
    prepare(raw, tmp_path / "out")
    dataset = MedsDataset.open(tmp_path / "out" / "all")
    assert dataset.tasks() == sorted(TASKS)
    at = ADMISSION + dt.timedelta(hours=48)
    assert dataset.labels("in_hospital_mortality").rows() == [(1, at, 0), (2, at, 1), (3, at, 0), (4, at, 0)]
    assert dataset.labels("length_of_stay").rows() == [(1, at, 5.0), (3, at, 0.0), (4, at, 12.0)]
    assert dataset.labels("saps_i").rows() == [(1, at, 0.0), (3, at, 9.0), (4, at, 9.0)]
    assert dataset.labels("sofa").rows() == [(1, at, 1.0), (4, at, 8.0)]
    assert dataset.labels("survival").rows() == [(2, at, 3.0), (3, at, 40.0)]
    assert dataset.labels("death_recorded").rows() == [(1, at, 0), (2, at, 1), (3, at, 1), (4, at, 0)]


def test_codes_carry_units(tmp_path: Path) -> None:
    write_set(tmp_path / "raw", "a", ordinary(1))
    prepare(tmp_path / "raw", tmp_path / "out")
    units = MedsDataset.open(tmp_path / "out" / "all").units()
    assert {"HR": "bpm", "Temp": "°C", "pH": "pH", "AGE": "years", "HEIGHT": "cm"}.items() <= units.items()
    assert set(PARAMETERS) <= set(units)
    assert len(PARAMETERS) == 37


def test_sites_by_icu_type_and_by_set(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_set(raw, "a", {n: record(n, "00:01,HR,80\n", icu=n) for n in (1, 2, 3, 4)})
    write_set(raw, "c", {n: record(n, "00:01,HR,80\n", icu=3) for n in (5, 6)}, packed=".zip")
    by_type = prepare(raw, tmp_path / "types", site_by="icu_type")
    assert {name: figures["stays"] for name, figures in by_type["sites"].items()} == {
        "cardiac_surgery": 1,
        "coronary_care": 1,
        "medical": 3,
        "surgical": 1,
    }
    assert MedsDataset.open(tmp_path / "types" / "coronary_care").events()[
        "subject_id"
    ].unique().to_list() == [1]
    by_set = prepare(raw, tmp_path / "sets", site_by="set")
    assert {name: figures["stays"] for name, figures in by_set["sites"].items()} == {"set_a": 4, "set_c": 2}
    assert by_set["sets"] == ["set-a", "set-c"]
    assert MedsDataset.open(tmp_path / "sets" / "set_c").name == "set_c"


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("packed", [".tar.gz", ".tgz", ".zip"])
def test_packing_line_ends_and_order_on_disk_change_nothing(tmp_path: Path, packed: str) -> None:
    files = ordinary(1, 30)
    write_set(tmp_path / "plain", "b", files)
    reversed_files = {n: text.replace("\n", "\r\n") for n, text in reversed(files.items())}
    write_set(tmp_path / "other", "b", reversed_files, packed=packed)
    assert prepare(tmp_path / "plain", tmp_path / "1") == prepare(tmp_path / "other", tmp_path / "2")
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")


def test_splits_are_stratified_by_death_and_seeded(tmp_path: Path) -> None:
    write_set(tmp_path / "raw", "a", ordinary(1, 200))
    summary = prepare(tmp_path / "raw", tmp_path / "0")
    assert summary["total"]["splits"] == {"train": 140, "tuning": 20, "held_out": 40}
    dataset = MedsDataset.open(tmp_path / "0" / "all")
    splits = dataset.splits()  # refuses a subject in two splits
    deaths = splits.join(dataset.labels("in_hospital_mortality"), on="subject_id").group_by("split")
    assert dict(deaths.agg(pl.col("label").sum()).rows()) == {"train": 70, "tuning": 10, "held_out": 20}
    prepare(tmp_path / "raw", tmp_path / "1", seed=1)
    assert not splits.equals(MedsDataset.open(tmp_path / "1" / "all").splits())
    for split in SPLITS:
        shard = pl.read_parquet(dataset.root / "data" / split / "0.parquet")["subject_id"].unique().sort()
        assert shard.to_list() == splits.filter(pl.col("split") == split)["subject_id"].to_list()


def corrupt(line: str) -> Callable[[Path], None]:
    return lambda raw: (raw / "set-a" / "3.txt").write_text(record(3, f"00:01,HR,80\n{line}\n00:02,HR,8\n"))  # type: ignore[func-returns-value]


def rewrite(name: str, text: str) -> Callable[[Path], None]:
    return lambda raw: (raw / name).write_text(text)  # type: ignore[func-returns-value]


def cut_archive(raw: Path) -> None:
    source = write_set(raw, "b", ordinary(500), packed=".tar.gz")
    source.write_bytes(source.read_bytes()[:150])


def not_a_zip(raw: Path) -> None:
    write_set(raw, "b", ordinary(500), packed=".zip").write_text("<html>please log in</html>")


def empty_archive(raw: Path) -> None:
    with zipfile.ZipFile(write_set(raw, "b", {}, packed=".zip"), "w"):
        pass


def same_record_twice_in_an_archive(raw: Path) -> None:
    source = write_set(raw, "b", ordinary(500, 2), packed=".zip")
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("copy/500.txt", record(500))


def same_record_in_two_sets(raw: Path) -> None:
    write_set(raw, "b", ordinary(3, 1))


def outcomes_missing_a_row(raw: Path) -> None:
    path = raw / "Outcomes-a.txt"
    path.write_text("".join(line for line in path.open() if not line.startswith("3,")))


def outcomes_twice(raw: Path) -> None:
    path = raw / "Outcomes-a.txt"
    path.write_text(path.read_text() + "3,1,2,3,-1,0\n")


FAULTS: list[tuple[Callable[[Path], object], str, str]] = [
    (corrupt("00:01,HR"), "raw/set-a/3.txt", r"line 9: '00:01,HR' is not Time,Parameter,Value"),
    (corrupt("00:01,HR,80,1"), "raw/set-a/3.txt", r"line 9: '00:01,HR,80,1' is not"),
    (corrupt("0:01,HR,80"), "raw/set-a/3.txt", r"line 9: '0:01,HR,80' is not"),
    (corrupt("00:61,HR,80"), "raw/set-a/3.txt", r"line 9: '00:61,HR,80' is not"),
    (corrupt("00:01,HR,eighty"), "raw/set-a/3.txt", r"line 9: '00:01,HR,eighty' is not"),
    (corrupt("00:01,HR,nan"), "raw/set-a/3.txt", r"line 9: '00:01,HR,nan' is not"),
    (corrupt("00:01,HR,"), "raw/set-a/3.txt", r"line 9: '00:01,HR,' is not"),
    (corrupt(""), "raw/set-a/3.txt", r"line 9: '' is not"),
    (corrupt("00:01,Mood,80"), "raw/set-a/3.txt", r"line 9: '00:01,Mood,80' has a parameter the challenge"),
    (corrupt("00:01,Gender,7"), "raw/set-a/3.txt", r"line 9: '00:01,Gender,7' has an impossible value"),
    (corrupt("00:00,ICUType,5"), "raw/set-a/3.txt", r"line 9: '00:00,ICUType,5' has an impossible value"),
    (corrupt("00:00,RecordID,4"), "raw/set-a/3.txt", r"line 9: '00:00,RecordID,4' has an impossible value"),
    (rewrite("set-a/3.txt", ""), "raw/set-a/3.txt", "is empty"),
    (rewrite("set-a/3.txt", HEADER), "raw/set-a/3.txt", "holds no row"),
    (
        rewrite("set-a/3.txt", "HR,O2Sat,Temp\n80,97,37\n"),
        "raw/set-a/3.txt",
        r"is not a record of the challenge \(its first line is 'HR,O2Sat,Temp'\)",
    ),
    (rewrite("set-a/p3.txt", record(3)), "raw/set-a/p3.txt", "is not named after a RecordID"),
    (rewrite("set-d.zip", ""), "raw/set-d.zip", "unknown set 'd'"),
    (lambda raw: (raw / "set-a").rename(raw / "set-e"), "raw/set-e", "unknown set 'e'"),
    (lambda raw: shutil.rmtree(raw / "set-a"), "raw", "holds none of set-a, set-b, set-c"),
    (shutil.rmtree, "raw", "no such folder"),
    (lambda raw: (raw / "Outcomes-a.txt").unlink(), "raw/Outcomes-a.txt", "no such file, but set-a is there"),
    (rewrite("Outcomes-a.txt", ""), "raw/Outcomes-a.txt", "is empty"),
    (rewrite("Outcomes-a.txt", "id,y\n3,0\n"), "raw/Outcomes-a.txt", r"is not an outcomes file .*'id,y'"),
    (
        rewrite("Outcomes-a.txt", OUTCOMES_HEADER + "3,1,2,x,-1,0\n"),
        "raw/Outcomes-a.txt",
        "line 2: '3,1,2,x,-1,0' is not RecordID",
    ),
    (outcomes_missing_a_row, "raw/Outcomes-a.txt", "no row for RecordID 3, which set-a holds"),
    (outcomes_twice, "raw/Outcomes-a.txt", "line 14: RecordID 3 is listed twice"),
    (same_record_twice_in_an_archive, "raw/set-b.zip: copy/500.txt", "record 500 is there twice"),
    (same_record_in_two_sets, "raw/set-b/3.txt", "record 3 is also in set-a"),
    (cut_archive, "raw/set-b.tar.gz", "cannot be read"),
    (not_a_zip, "raw/set-b.zip", "cannot be read"),
    (empty_archive, "raw/set-b.zip", "holds no record"),
]


@pytest.mark.parametrize(("damage", "where", "message"), FAULTS)
def test_a_fault_is_named_and_nothing_is_written(
    tmp_path: Path, damage: Callable[[Path], object], where: str, message: str
) -> None:
    raw = tmp_path / "raw"
    write_set(raw, "a", ordinary(1))
    damage(raw)
    with pytest.raises(InputFault, match=message) as caught:
        prepare(raw, tmp_path / "out")
    assert caught.value.where == str(tmp_path / where)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["raw"])


def test_a_record_without_icu_type_has_no_site(tmp_path: Path) -> None:
    write_set(tmp_path / "raw", "a", {**ordinary(1), 3: record(3, "00:01,HR,80\n00:02,HR,80\n", icu=-1)})
    with pytest.raises(InputFault, match=r"3.txt: has no ICUType; choose the sites by set"):
        prepare(tmp_path / "raw", tmp_path / "out", site_by="icu_type")
    assert prepare(tmp_path / "raw", tmp_path / "out", site_by="set")["total"]["stays"] == 12


def test_files_that_macos_puts_into_archives_are_no_records(tmp_path: Path) -> None:
    source = write_set(tmp_path / "raw", "a", ordinary(1, 3), packed=".zip")
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("__MACOSX/set-a/._1.txt", b"\0\1")
    assert prepare(tmp_path / "raw", tmp_path / "out")["total"]["stays"] == 3


def test_the_summary_is_beside_the_sites(tmp_path: Path) -> None:
    write_set(tmp_path / "raw", "a", ordinary(1))
    summary = prepare(tmp_path / "raw", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert summary["sites"]["all"] == {
        "stays": 12,
        "deaths": 6,
        "observations": 24,
        "median_observations": 2.0,
        "splits": {"train": 8, "tuning": 2, "held_out": 2},
    }


@pytest.fixture(scope="module")
def real(physionet2012_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Sets b and c as four hospitals: the folder and its summary."""
    out = tmp_path_factory.mktemp("physionet2012") / "sites"
    return out, prepare(physionet2012_raw, out, site_by="icu_type")


def test_the_real_files_hold_the_known_stays(
    real: tuple[Path, dict[str, Any]], physionet2012_raw: Path
) -> None:
    """7,991 usable stays, median 425 observations, at most 1,191, 568 + 585 deaths."""
    out, summary = real
    assert {name: figures["stays"] for name, figures in summary["sites"].items()} == {
        "coronary_care": 1188,
        "cardiac_surgery": 1654,
        "medical": 2809,
        "surgical": 2340,
    }
    assert summary["total"]["stays"] == 7991
    assert summary["total"]["median_observations"] == 425
    assert summary["total"]["observations"] == 3_484_499
    assert summary["left_out"] == {
        "rows without a parameter": 2403,
        "stays with fewer than 6 rows": 9,
        "exact duplicates": 0,
        "static values missing (negative)": 3833,
        "dynamic values missing (negative)": 927,
        "observations after 48 h": 0,
    }
    datasets = [MedsDataset.open(out / name) for name in summary["sites"]]
    dynamic = pl.concat([dataset.events() for dataset in datasets]).drop_nulls("time")
    assert dynamic.group_by("subject_id").len()["len"].max() == 1191
    assert set(dynamic["code"].unique()) == set(PARAMETERS)
    assert sum(len(dataset.labels("length_of_stay")) for dataset in datasets) == 7891
    labels = pl.concat([dataset.labels("in_hospital_mortality") for dataset in datasets])
    deaths = set(labels.filter(pl.col("label") == 1)["subject_id"])
    for letter, count in (("b", 568), ("c", 585)):
        listed = pl.read_csv(physionet2012_raw / f"Outcomes-{letter}.txt")["RecordID"]
        assert len(deaths & set(listed)) == count


def test_a_real_stay_is_as_its_file_says(real: tuple[Path, dict[str, Any]]) -> None:
    stay = MedsDataset.open(real[0] / "cardiac_surgery").events().filter(pl.col("subject_id") == 142675)
    minute = (pl.col("time") - ADMISSION).dt.total_minutes()
    first = stay.drop_nulls("time").head(4).select(minute, "code", "numeric_value").rows()
    assert first == [(0, "Weight", 85), (44, "pH", 7.5), (44, "PaCO2", 32), (44, "PaO2", 378)]
    static = stay.filter(pl.col("time").is_null()).select("code", "numeric_value").rows()
    assert set(static) >= {("AGE", 70.0), ("GENDER//M", None), ("ICU_TYPE//cardiac_surgery", None)}


def test_the_real_splits_are_stratified(real: tuple[Path, dict[str, Any]]) -> None:
    out, summary = real
    for name, figures in summary["sites"].items():
        dataset = MedsDataset.open(out / name)
        splits = dataset.splits()
        assert dict(splits.group_by("split").len().rows()) == figures["splits"]
        rates = splits.join(dataset.labels("in_hospital_mortality"), on="subject_id").group_by("split")
        share = figures["deaths"] / figures["stays"]
        assert rates.agg(pl.col("label").mean())["label"].to_list() == pytest.approx([share] * 3, abs=0.01)

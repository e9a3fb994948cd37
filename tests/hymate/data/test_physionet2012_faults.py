"""PhysioNet 2012: every fault of its files is named, and nothing is written."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hymate.errors import InputFault
from tests.hymate.data.challenge import HEADER, OUTCOMES_HEADER, ordinary, record, write_set
from tests.hymate.data.prepared_challenge import prepare


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

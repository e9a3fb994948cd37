"""A tiny copy of the PhysioNet 2012 layout, written by hand."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

HEADER = "Time,Parameter,Value\n"
OUTCOMES_HEADER = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n"


def record(record_id: int, rows: str = "", *, icu: int = 3, gender: int = 0, weight: str = "-1") -> str:
    """One stay's file with the general descriptors and `rows` after them."""
    return (
        f"{HEADER}00:00,RecordID,{record_id}\n00:00,Age,54\n00:00,Gender,{gender}\n"
        f"00:00,Height,-1\n00:00,ICUType,{icu}\n00:00,Weight,{weight}\n{rows}"
    )


def write_set(raw: Path, letter: str, files: Mapping[int, str], *, packed: str = "") -> Path:
    """`set-<letter>` as a folder, or packed as ".tar.gz" or ".zip"; deaths: the even RecordIDs."""
    raw.mkdir(exist_ok=True)
    source = raw / f"set-{letter}{packed}"
    named = {f"set-{letter}/{number}.txt": text.encode() for number, text in files.items()}
    if packed == ".zip":
        with zipfile.ZipFile(source, "w") as archive:
            for name, content in named.items():
                archive.writestr(name, content)
    elif packed:
        with tarfile.open(source, "w:gz") as stream:
            for name, content in named.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                stream.addfile(entry, io.BytesIO(content))
    else:
        source.mkdir()
        for name, content in named.items():
            (raw / name).write_bytes(content)
    outcomes = "".join(f"{number},1,2,{number % 50},-1,{1 - number % 2}\n" for number in files)
    (raw / f"Outcomes-{letter}.txt").write_text(OUTCOMES_HEADER + outcomes)
    return source


def ordinary(first: int, count: int = 12) -> dict[int, str]:
    """Unremarkable stays, one heart rate and one temperature each."""
    return {
        number: record(number, f"01:30,HR,{60 + number % 40}\n47:59,Temp,37.{number % 10}\n")
        for number in range(first, first + count)
    }

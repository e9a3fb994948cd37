"""Find and unpack the files of the PhysioNet/CinC Challenge 2012, wherever and however they are packed."""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hymate.errors import InputFault

SETS = ("a", "b", "c")
HEADER = "Time,Parameter,Value"
OUTCOMES_HEADER = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"
WHERE_FROM = "get the files again from physionet.org/content/challenge-2012"

_SUFFIXES = ("", ".tar.gz", ".tgz", ".zip")  # in order of preference when a set is there twice


@dataclass(frozen=True)
class RawSet:
    """One of the challenge's sets: `letter`, where its records are, and its outcomes file."""

    letter: str
    source: Path
    outcomes: Path


@dataclass(frozen=True)
class Record:
    """One stay's file: `where` for messages, the RecordID its name promises, its rows as text."""

    where: str
    record_id: int
    body: str


def find_sets(raw: Path) -> list[RawSet]:
    """The sets lying in `raw`: `set-a`, `set-a.tar.gz`, `set-a.tgz` or `set-a.zip`, and b, c likewise.

    Raises:
        InputFault: no such folder, no set in it, a set the challenge does not have, no outcomes.
    """
    if not raw.is_dir():
        raise InputFault(raw, "no such folder", "give the folder that holds set-a, set-b or set-c")
    found: dict[str, Path] = {}
    for suffix in _SUFFIXES:
        for entry in sorted(raw.iterdir()):
            match = re.fullmatch(r"set-(\w+)" + re.escape(suffix), entry.name)
            if match is None or entry.is_dir() != (suffix == ""):
                continue
            letter = match.group(1)
            if letter not in SETS:
                what = f"unknown set {letter!r}"
                raise InputFault(entry, what, f"the challenge has set-{', set-'.join(SETS)}: move it away")
            found.setdefault(letter, entry)
    if not found:
        what = "holds none of set-a, set-b, set-c (folder, .tar.gz or .zip)"
        raise InputFault(raw, what, WHERE_FROM)
    sets = [RawSet(letter, found[letter], raw / f"Outcomes-{letter}.txt") for letter in sorted(found)]
    for each in sets:
        if not each.outcomes.is_file():
            raise InputFault(each.outcomes, f"no such file, but set-{each.letter} is there", WHERE_FROM)
    return sets


def read_records(source: Path) -> list[Record]:
    """Every record of one set, as it lies there: what is written later does not depend on the order.

    Raises:
        InputFault: the archive is broken, a file is empty or is no file of the challenge.
    """
    records: dict[int, Record] = {}
    for name, content in _members(source):
        record = _record(source, name, content)
        if record.record_id in records:
            raise InputFault(record.where, f"record {record.record_id} is there twice", WHERE_FROM)
        records[record.record_id] = record
    if not records:
        raise InputFault(source, "holds no record (NUMBER.txt)", WHERE_FROM)
    return list(records.values())


@dataclass(frozen=True)
class Outcome:
    """One row of an outcomes file; None: not known (-1 there)."""

    died: bool
    """In hospital."""
    days: float | None
    """In hospital."""
    saps_i: float | None
    """Simplified acute physiology score."""
    sofa: float | None
    """Sequential organ failure assessment."""
    survival: float | None
    """Days from admission to death; None: no death on record."""


def read_outcomes(path: Path) -> dict[int, Outcome]:
    """RecordID -> its outcome.

    Raises:
        InputFault: another header, a row that cannot be read, a RecordID listed twice.
    """
    lines = _decode(path.read_bytes()).splitlines()
    if not lines:
        raise InputFault(path, "is empty", WHERE_FROM)
    if lines[0] != OUTCOMES_HEADER:
        what = f"is not an outcomes file of the challenge (its first line is {_shown(lines[0])})"
        raise InputFault(path, what, f"the first line has to be {OUTCOMES_HEADER}")
    outcomes: dict[int, Outcome] = {}
    for number, line in enumerate(lines[1:], start=2):
        match = re.fullmatch(r"(\d+),(-?\d+),(-?\d+),(-?\d+),(-?\d+),([01])", line)
        if match is None:
            what = f"line {number}: {_shown(line)} is not {OUTCOMES_HEADER}"
            raise InputFault(path, what, WHERE_FROM)
        record_id, *scores, died = (int(text) for text in match.groups())
        if record_id in outcomes:
            raise InputFault(path, f"line {number}: RecordID {record_id} is listed twice", WHERE_FROM)
        saps_i, sofa, days, survival = (float(score) if score >= 0 else None for score in scores)
        outcomes[record_id] = Outcome(bool(died), days, saps_i, sofa, survival)
    return outcomes


def _record(source: Path, name: str, content: bytes) -> Record:
    where = f"{source}/{name}" if source.is_dir() else f"{source}: {name}"
    stem = PurePosixPath(name).stem
    if not stem.isdecimal():
        raise InputFault(where, "is not named after a RecordID", "leave only NUMBER.txt files in the set")
    if not content.strip():
        raise InputFault(where, "is empty", WHERE_FROM)
    header, _, body = _decode(content).partition("\n")
    if header != HEADER:
        what = f"is not a record of the challenge (its first line is {_shown(header)})"
        raise InputFault(where, what, f"the first line has to be {HEADER}")
    body = body.rstrip("\n")
    if not body:
        raise InputFault(where, "holds no row below its header", WHERE_FROM)
    return Record(where, int(stem), body)


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    try:
        if source.is_dir():
            for path in sorted(source.iterdir()):
                if _wanted(path.name) and path.is_file():
                    yield path.name, path.read_bytes()
        elif source.suffix == ".zip":
            with zipfile.ZipFile(source) as archive:
                for entry in archive.infolist():
                    if not entry.is_dir() and _wanted(entry.filename):
                        yield entry.filename, archive.read(entry)
        else:
            with tarfile.open(source, "r|gz") as stream:
                for member in stream:
                    file = stream.extractfile(member) if member.isfile() and _wanted(member.name) else None
                    if file is not None:
                        yield member.name, file.read()
    # RuntimeError: a zip archive that wants a password; NotImplementedError: an exotic compression.
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as fault:
        raise InputFault(source, f"cannot be read ({fault})", WHERE_FROM) from fault


def _wanted(name: str) -> bool:
    """Text files; not the `._*` shadows that macOS puts into archives."""
    base = PurePosixPath(name).name
    return base.endswith(".txt") and not base.startswith(".")


def _decode(content: bytes) -> str:
    # A byte that is no text becomes U+FFFD, which no row may hold: the row's check then names it.
    return content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")


def _shown(text: str) -> str:
    """`text` fit for one line of a message."""
    return repr(text if len(text) <= 60 else text[:57] + "...")

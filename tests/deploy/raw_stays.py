"""A few stays of the real PhysioNet 2012 challenge, as the raw files they came in."""

from __future__ import annotations

import csv
import tarfile
from pathlib import Path

HOSPITALS = {"1": "coronary_care", "3": "medical", "4": "surgical"}
"""ICU type as the records write it -> the hospital that `hymate data physionet2012` makes of it."""


def write_few(raw: Path, folder: Path, died: int, survived: int) -> None:
    """Write set b with the first so many stays of each of `HOSPITALS` into `folder`."""
    with (raw / "Outcomes-b.txt").open(newline="") as file:
        outcomes = {row["RecordID"]: row for row in csv.DictReader(file)}
    wanted = {(icu, end): count for icu in HOSPITALS for end, count in (("1", died), ("0", survived))}
    kept = []
    (folder / "set-b").mkdir(parents=True)
    with tarfile.open(raw / "set-b.tar.gz") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is None or not any(wanted.values()):
                continue
            text = content.read().decode("ascii")
            icu = next(line for line in text.splitlines() if ",ICUType," in line).rsplit(",", 1)[1]
            row = outcomes[Path(member.name).stem]
            kind = (icu, row["In-hospital_death"])
            if wanted.get(kind, 0):
                wanted[kind] -= 1
                (folder / "set-b" / Path(member.name).name).write_text(text)
                kept.append(row)
    assert not any(wanted.values()), f"too few stays of a kind: {wanted}"
    with (folder / "Outcomes-b.txt").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)

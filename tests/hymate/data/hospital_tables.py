"""A hospital's own tables as files, and what the command makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hymate.data.meds import MedsDataset
from hymate.data.tabular.triplets import TripletSource, prepare_triplets
from hymate.errors import InputFault

EVENTS = "subject,time,code,value\n"
LABELS = "subject,prediction_time,label\n"
ROLES = {name: name for name in EVENTS.strip().split(",")}
LABEL_ROLES = {name: name for name in LABELS.strip().split(",")}

GOOD = "1,2024-03-01 10:00,HR,80\n"
ONE_LABEL = LABELS + "1,2024-03-02 00:00,1\n"


def source(folder: Path, events: str | bytes, labels: str = ONE_LABEL, **options: Any) -> TripletSource:
    folder.mkdir(exist_ok=True)
    content = events.encode() if isinstance(events, str) else events
    (folder / "events.csv").write_bytes(content)
    (folder / "labels.csv").write_text(labels)
    for name in ("static", "splits", "units"):
        if name in options:
            (folder / f"{name}.csv").write_text(options[name])
            options[name] = folder / f"{name}.csv"
    defaults: dict[str, Any] = {"columns": ROLES, "label_columns": LABEL_ROLES}
    return TripletSource(
        events=folder / "events.csv", labels=folder / "labels.csv", **{**defaults, **options}
    )


def made(
    tmp_path: Path, events: str | bytes, labels: str = ONE_LABEL, **options: Any
) -> tuple[MedsDataset, dict[str, Any]]:
    out = tmp_path / "site"
    figures = prepare_triplets(source(tmp_path / "raw", events, labels, **options), out, task="outcome")
    return MedsDataset.open(out), figures


def rows_of(dataset: MedsDataset) -> list[tuple[Any, ...]]:
    return dataset.events().drop_nulls("time").rows()


def fault(tmp_path: Path, events: str | bytes, labels: str = ONE_LABEL, **options: Any) -> str:
    """The one line of the fault; nothing may be left behind."""
    with pytest.raises(InputFault) as raised:
        made(tmp_path, events, labels, **options)
    assert {entry.name for entry in tmp_path.iterdir()} == {"raw"}
    message = str(raised.value)
    assert "\n" not in message
    return message.replace(str(tmp_path / "raw") + "/", "")

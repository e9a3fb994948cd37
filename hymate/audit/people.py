"""The people of an audit: those a model was trained on, and others it never saw, in one store."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hymate.data.mapping import translated
from hymate.data.meds import MedsDataset
from hymate.data.pooling import pool_windows
from hymate.data.store import TripletStore, prepare_store
from hymate.data.tasks import Windows, cut_windows
from hymate.errors import InputFault
from hymate.train.saved_model import SavedModel

Floats = NDArray[np.float64]
FEWEST = 10
"""People of each group below which nothing can be told apart from chance."""


@dataclass(frozen=True)
class Group:
    """Which people: those in some splits of a MEDS data set."""

    data: Path
    splits: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class People:
    """n people with their labelled stays; the unit of an audit is the person, as it is of the ledger."""

    store: TripletStore
    rows: NDArray[np.int64]
    """All labelled stays in `store`, (m,)."""
    person: NDArray[np.int64]
    """Whose they are, 0 to n - 1, (m,)."""
    member: NDArray[np.bool_]
    """Whom the model was trained on, (n,)."""

    @classmethod
    def of(cls, store: TripletStore, member: NDArray[np.bool_]) -> People:
        """The people of `store`; member: of each stay, (N,), the same for all stays of a person."""
        rows = np.flatnonzero(~np.isnan(store.label))
        _, first, person = np.unique(store.subject_id[rows], return_index=True, return_inverse=True)
        return cls(store, rows, person, member[rows][first])

    def __len__(self) -> int:
        return len(self.member)

    def mean(self, of_stays: Floats) -> Floats:
        """Each person's mean over their stays: (m,) -> (n,)."""
        return np.bincount(self.person, of_stays) / np.bincount(self.person)

    def stays_of(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Labelled stays of the people where `chosen` (n,) is True."""
        stays: NDArray[np.int64] = self.rows[chosen[self.person]]
        return stays

    def digest(self) -> str:
        """SHA-256 (hex) of all stays: what was computed from other stays is not theirs."""
        digest, store = hashlib.sha256(), self.store
        arrays = (store.time, store.code, store.value, store.offset, store.static, store.label)
        for array in (*arrays, store.subject_id):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@contextmanager
def people_of(saved: SavedModel, members: Group, others: Group) -> Iterator[People]:
    """Both groups, as the model sees them; the store is gone afterwards.

    Raises:
        InputFault: a data set cannot be read, somebody is in both groups, or one is too small.
    """
    parts = {name: _windows(saved, group) for name, group in (("members", members), ("others", others))}
    ids = [part.stays["subject_id"].unique() for part in parts.values()]
    both = ids[0].is_in(ids[1].implode()).sum()
    if both:
        what = f"{both:,} of {len(ids[0]):,} subjects are among the members ({members.data}), too"
        raise InputFault(others.data, what, "give data, or splits, of people the model never saw")
    member = np.repeat([True, False], [len(part.stays) for part in parts.values()])
    with tempfile.TemporaryDirectory(prefix="hymate-audit-") as folder:
        store = prepare_store(Path(folder) / "store", pool_windows(parts), saved.vocabulary, saved.task)
        people = People.of(store, member)
        for group, number in ((members, people.member.sum()), (others, (~people.member).sum())):
            if number < FEWEST:
                what = f"holds {number} people with a label in {_listed(group.splits)}"
                raise InputFault(group.data, what, f"an audit needs {FEWEST} at least, better some thousands")
        yield people


def _windows(saved: SavedModel, group: Group) -> Windows:
    """The stays of these splits in the codes and units of the model."""
    dataset = MedsDataset.open(group.data)
    windows = cut_windows(dataset, saved.task)
    kept = windows.stays.filter(pl.col("split").is_in(group.splits))
    number = pl.DataFrame({"stay": kept["stay"], "new": np.arange(len(kept), dtype=np.uint32)})

    def renumbered(frame: pl.DataFrame) -> pl.DataFrame:
        found = frame.join(number, on="stay", how="inner", maintain_order="left")
        return found.with_columns(pl.col("new").alias("stay")).drop("new")

    of_group = Windows(
        renumbered(kept), renumbered(windows.triplets), renumbered(windows.static), windows.left_out
    )
    return translated(of_group, dataset.units(), saved.vocabulary, dataset.name)


def _listed(names: Sequence[str]) -> str:
    return f"split{'s' if len(names) > 1 else ''} {', '.join(names)}"

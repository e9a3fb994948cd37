"""What matters to a model over many stays, in figures that may leave the hospital.

Importance of a feature: mean over stays of |sum of its attributions in the stay|; 0 where a stay lacks it.
Intervals resample subjects. What fewer than `min_cell` subjects stand behind is left out: features, single
cells of feature x time, demographics; where all but a few have something, how many is not said.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hymate.data.scaling import VocabularyEntry
from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.evaluate.bootstrap import BootstrapSettings, Figure, Floats, with_intervals
from hymate.evaluate.explanation.amounts import Amounts, attributed
from hymate.evaluate.explanation.deletion import delete_features
from hymate.evaluate.explanation.local import target_of
from hymate.evaluate.explanation.pathway import Pathway
from hymate.evaluate.explanation.units import titled
from hymate.train.saved_model import SavedModel

FORMAT = 1
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Importance:
    """subjects: who have it; None: nearly all, and how many would tell who has not. by_time: null for a
    cell of too few subjects; empty for demographics."""

    code: str
    title: str
    subjects: int | None
    importance: Figure
    by_time: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class DeletionCheck:
    """Mean size of the answer's change without each stay's top features, and without random ones."""

    features: int
    top: Figure
    random: Figure
    larger: float | None
    """Share of stays that the top features move more."""


@dataclass(frozen=True)
class OverallImportance:
    """Features and demographics by importance, largest first; in log odds, or the label's unit."""

    study: str
    task: str
    kind: str
    split: str
    subjects: int
    stays: int
    min_cell: int
    resamples: int
    edges: tuple[float, ...]
    """Of the intervals of time, hours since the window's start."""
    features: tuple[Importance, ...]
    static: tuple[Importance, ...]
    withheld: int
    """Features and demographics that fewer than `min_cell` subjects have."""
    check: DeletionCheck
    explains_measuring: bool
    largest_gap: float

    @property
    def unit(self) -> str:
        return "unit of the label" if self.kind == "regression" else "log odds"

    @property
    def note(self) -> str:
        return (
            f"means over {self.subjects:,} subjects; nothing that fewer than {self.min_cell} have; "
            "may leave the hospital if its rules allow such figures"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "format": FORMAT,
            "note": self.note,
            "method": "integrated gradients (arXiv 1703.01365): mean over stays of |sum in the stay|",
            "unit": self.unit,
            **asdict(self),
        }


@dataclass(frozen=True)
class OverallSettings:
    """split: whose stays; stays: drawn at most; bin_hours: length of an interval of time."""

    split: str = "held_out"
    stays: int = 1000
    bin_hours: float = 6.0
    min_cell: int = 10
    bootstrap: BootstrapSettings = field(default_factory=BootstrapSettings)
    deleted: int = 3


def explain_overall(
    saved: SavedModel,
    store: TripletStore,
    settings: OverallSettings,
    *,
    label: str = "",
    described: dict[str, str] | None = None,
) -> OverallImportance:
    """Importance over the stays of one split.

    Raises:
        InputFault: fewer than `min_cell` subjects, or `label` is none that the model learned.
    """
    target = target_of(saved, label)
    rows = store.rows(settings.split)
    if len(rows) > settings.stays:
        drawn = np.random.default_rng(settings.bootstrap.seed).permutation(rows)
        rows = np.sort(drawn[: settings.stays])
    subjects = store.subject_id[rows]
    people = len(np.unique(subjects))
    if people < settings.min_cell:
        raise InputFault(
            f"split {settings.split}",
            f"holds fewer than {settings.min_cell} subjects with a stay of the model's task",
            "explain another split, or a larger data set",
        )
    bins = max(1, int(np.ceil(saved.task.lookback_hours / settings.bin_hours - 1e-9)))
    made = attributed(saved, store, rows, target, bins)
    deletion = delete_features(
        saved, store, rows, np.abs(made.by_feature), target=target, features=settings.deleted,
        seed=settings.bootstrap.seed,
    )  # fmt: skip
    moved = {"top": deletion.moved_by_top, "random": deletion.moved_by_random}
    figures = _means(moved, subjects, settings.bootstrap)
    features, static, withheld = _importances(saved, store, rows, made, settings, described or {})
    return OverallImportance(
        study=saved.name,
        task=label or saved.task.label_sets[0],
        kind=saved.task.kind,
        split=settings.split,
        subjects=people,
        stays=len(rows),
        min_cell=settings.min_cell,
        resamples=settings.bootstrap.resamples,
        edges=tuple(float(x) for x in np.linspace(0.0, saved.task.lookback_hours, bins + 1)),
        features=features,
        static=static,
        withheld=withheld,
        check=DeletionCheck(
            settings.deleted,
            figures["top"],
            figures["random"],
            float((deletion.moved_by_top > deletion.moved_by_random).mean()),
        ),
        explains_measuring=Pathway(saved.model, saved.vocabulary.size).explains_measuring,
        largest_gap=float(np.abs(made.gap).max()),
    )


@dataclass(frozen=True)
class _Column:
    """One feature before it is cleared: sizes of attribution (n,), who has it (n,), and of a code with
    times its index less 1."""

    entry: VocabularyEntry
    size: Floats
    has: Bools
    index: int | None


def _columns(saved: SavedModel, store: TripletStore, rows: NDArray[np.int64], made: Amounts) -> list[_Column]:
    columns = [
        _Column(entry, np.abs(made.by_feature[:, i]), np.logical_or.reduce(made.seen[:, i], axis=1), i)
        for i, entry in enumerate(saved.vocabulary.codes)
    ]
    at = 0
    for entry in saved.vocabulary.static:
        width = 2 if entry.numeric else 1
        size = np.abs(made.static[:, at : at + width].sum(axis=1))
        # The column after a number's says that it is missing.
        marks = store.static[rows, at + entry.numeric]
        has: Bools = np.equal(marks, 0.0) if entry.numeric else np.not_equal(marks, 0.0)
        columns.append(_Column(entry, size, has, None))
        at += width
    return columns


def _importances(
    saved: SavedModel,
    store: TripletStore,
    rows: NDArray[np.int64],
    made: Amounts,
    settings: OverallSettings,
    described: dict[str, str],
) -> tuple[tuple[Importance, ...], tuple[Importance, ...], int]:
    """Features, demographics, and how many of both are withheld."""
    subjects = store.subject_id[rows]
    everyone = len(np.unique(subjects))

    def having(has: Bools) -> int:
        return len(np.unique(subjects[has]))

    def cells(index: int) -> tuple[float | None, ...]:
        enough = [having(has) >= settings.min_cell for has in made.seen[:, index].T]
        means = np.abs(made.by_time[:, index]).mean(axis=0)
        return tuple(float(mean) if known else None for mean, known in zip(means, enough, strict=True))

    columns = _columns(saved, store, rows, made)
    shown = [column for column in columns if having(column.has) >= settings.min_cell]
    # What nobody has is nobody's secret.
    withheld = sum(0 < having(column.has) < settings.min_cell for column in columns)
    figures = _means({str(k): column.size for k, column in enumerate(shown)}, subjects, settings.bootstrap)
    features, static = [], []
    for k, column in enumerate(shown):
        people, entry = having(column.has), column.entry
        told = None if 0 < everyone - people < settings.min_cell else people
        title = titled(entry.code, entry.unit, described.get(entry.code))
        if column.index is None:
            static.append(Importance(entry.code, title, told, figures[str(k)]))
            continue
        features.append(Importance(entry.code, title, told, figures[str(k)], cells(column.index)))
    return _sorted(features), _sorted(static), withheld


def _sorted(found: list[Importance]) -> tuple[Importance, ...]:
    return tuple(sorted(found, key=lambda each: -(each.importance.value or 0.0)))


def _means(
    amounts: dict[str, Floats], subjects: NDArray[np.int64], settings: BootstrapSettings
) -> dict[str, Figure]:
    """Weighted means of each column, with intervals."""
    matrix = np.stack(list(amounts.values()), axis=1)  # (n, columns)

    def measure(weights: Floats) -> dict[str, Floats]:
        means = weights @ matrix / weights.sum(axis=1, keepdims=True)
        return {name: means[:, k] for k, name in enumerate(amounts)}

    return with_intervals(measure, subjects, settings)

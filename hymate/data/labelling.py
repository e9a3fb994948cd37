"""Task labels out of a MEDS data set, by ACES (https://github.com/justin13601/ACES, package es-aces).

A task file is a file of ACES: predicates, a trigger and windows. Below `metadata.hymate`, which ACES
does not read, stands what ACES cannot say: the task's name, and whether its label means yes or no.
Labels come out as MEDS wants them (`LabelSchema`, `boolean_value`), one file for each file of events.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow.parquet as pq
from meds.schema import DataSchema, LabelSchema, data_subdirectory, subject_splits_filepath

from hymate.config import Frozen, load_yaml, parse
from hymate.data.meds import LABELS, SPLITS, MedsDataset
from hymate.data.meds_files import first_line, parquet_files, read_table
from hymate.data.output import fresh_folder
from hymate.errors import InputFault

NO_SPLIT = "no split"

_COLUMNS = {"subject_id": pl.Int64(), "prediction_time": pl.Datetime("us"), "boolean_value": pl.Boolean()}


class TaskHeader(Frozen):
    """`metadata.hymate` of a task file."""

    name: str | None = None
    """Name of the label set; without it the file's."""
    positive_when: Literal["label", "no_label"] = "label"
    """no_label: a stay is positive when the window of ACES' label holds none of its events."""


@dataclass(frozen=True)
class TaskFile:
    """A task file, read and checked."""

    path: Path
    header: TaskHeader
    trigger: str
    """Name of the predicate that starts the windows."""
    trigger_code: Any
    """The codes it stands for, as the file has them."""

    @classmethod
    def read(cls, path: Path) -> TaskFile:
        """Raises InputFault when es-aces is not installed or the file defines no label."""
        _aces()
        content = load_yaml(path).get("metadata")
        header = content.get("hymate") if isinstance(content, dict) else None
        if not isinstance(header, dict | None):
            raise InputFault(path, "metadata.hymate is no mapping", "see the files in deploy/tasks/")
        parsed = parse(TaskHeader, header or {}, f"{path}: metadata.hymate")
        try:
            extractor = _extractor(path)
        # ACES checks little: a wrong file raises whatever it trips over (AttributeError, KeyError, ...).
        except Exception as fault:
            what = f"is no task that ACES can read ({type(fault).__name__}: {first_line(fault)})"
            raise InputFault(path, what, "compare it with the files in deploy/tasks/") from fault
        for key in ("label", "index_timestamp"):
            if getattr(extractor, f"{key}_window") is None:
                raise InputFault(path, f"no window has the key '{key}'", "see the files in deploy/tasks/")
        trigger = extractor.trigger.predicate
        return cls(path, parsed, trigger, getattr(extractor.predicates.get(trigger), "code", trigger))

    def name(self, given: str | None) -> str:
        """`given`, the header's name or the file's; InputFault when it cannot name a folder."""
        return require_label_name(
            given if given is not None else self.header.name or self.path.stem, "--name"
        )


def require_label_name(name: str, option: str) -> str:
    """`name` itself; InputFault when no folder below `labels/` can be called that."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputFault(option, f"{name!r} cannot name a label set", "use letters, digits and _")
    return name


@dataclass
class _Tally:
    """What ACES says of its work on one data set: triggers found, and windows not as wanted."""

    triggers: int = 0
    refused: dict[str, int] = field(default_factory=dict)


def label_dataset(
    meds: Path, task: Path, *, out: Path | None = None, name: str | None = None, force: bool = False
) -> dict[str, Any]:
    """Write `labels/<name>/` below `out` (the data set itself when None); returns the figures.

    Returns:
        JSON-ready: `task`, `labels`, `positive`, `subjects`, `splits` (split -> labels, positive),
        `triggers`, `left_out`: reason -> triggers; a trigger may fail for several reasons.

    Raises:
        InputFault: es-aces is missing, a file cannot be read, nothing in the data triggers the task, no
            label comes out, or the label set exists already and `force` was not given.
    """
    definition = TaskFile.read(task)
    name = definition.name(name)
    dataset = MedsDataset.open(meds)
    target = (out or meds) / LABELS / name
    _refuse_occupied(target, force=force)
    splits = dataset.splits() if (meds / subject_splits_filepath).is_file() else None
    tally = _Tally()
    labels = {}
    for path in _files_with_own_subjects(dataset):
        relative = path.relative_to(dataset.root / data_subdirectory)
        labels[relative] = _label_file(path, definition, tally)
    everything = pl.concat(labels.values())
    _refuse_useless(everything, definition, tally, dataset)
    with fresh_folder(target, replace=force) as folder:
        for relative, table in labels.items():
            if len(table):
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(LabelSchema.align(table.to_arrow()), folder / relative)
    return {"task": name, "folder": str(target), **_figures(everything, splits, tally)}


def _aces() -> Any:
    """The package `aces`, with the modules used here; imported late: it takes a second."""
    try:
        import aces.config
        import aces.predicates
        import aces.query
    except ModuleNotFoundError as missing:
        what = f"needs the package es-aces (module {missing.name} is missing)"
        raise InputFault("task labels", what, "pip install '.[tasks]' in the project's folder") from missing
    return aces


def _extractor(path: Path) -> Any:
    """ACES' own reading of a task file: for one query only, as a query moves its windows' offsets on."""
    return _aces().config.TaskExtractorConfig.load(path)


def _files_with_own_subjects(dataset: MedsDataset) -> Iterator[Path]:
    """The data set's files, checked as far as ACES relies on it: every file is labelled by itself."""
    schema = DataSchema.schema()
    home: dict[int, Path] = {}
    for path in dataset.data_files():
        wanted = schema.empty_table().select(["subject_id", "time", "code"]).schema
        subjects = read_table(path, wanted, nullable=("time",))["subject_id"]
        for subject in subjects.unique().to_list():
            other = home.setdefault(subject, path)
            if other != path:
                what = f"subject {subject} is also in {other.relative_to(dataset.root)}"
                raise InputFault(path, what, "a subject's events belong in one file")
        yield path


def _label_file(path: Path, task: TaskFile, tally: _Tally) -> pl.DataFrame:
    """The labels of one file of events, by (subject_id, prediction_time)."""
    from omegaconf import DictConfig

    aces, extractor = _aces(), _extractor(task.path)
    with _listening(tally):
        source = DictConfig({"path": str(path), "standard": "meds", "ts_format": None})
        try:
            predicates = aces.predicates.get_predicates_df(extractor, source)
        except (pl.exceptions.PolarsError, ValueError) as fault:
            what = f"its predicates do not fit {path} ({first_line(fault)})"
            raise InputFault(task.path, what, "correct the predicates") from fault
        dated = predicates.filter(pl.col("timestamp").is_not_null())
        tally.triggers += len(dated.filter(pl.col(task.trigger) > 0))
        found: pl.DataFrame = aces.query.query(extractor, predicates)
    if not len(found):
        return pl.DataFrame(schema=_COLUMNS)
    positive = pl.col("label") > 0 if task.header.positive_when == "label" else pl.col("label") == 0
    table = found.select("subject_id", prediction_time="index_timestamp", boolean_value=positive)
    return table.cast(pl.Schema(_COLUMNS)).sort("subject_id", "prediction_time")


class _Listener(logging.Handler):
    """Reads from ACES' log, its only account of it, how many triggers each window's demands refused."""

    def __init__(self, tally: _Tally) -> None:
        super().__init__(logging.INFO)
        self._tally = tally
        self._window = ""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if match := re.fullmatch(r"Summarizing subtree rooted at '(\w+)\.\w+'\.\.\.", message):
            self._window = match[1]
        elif message.startswith("Beginning query"):
            self._window = ""
        elif self._window and (match := re.match(r"Excluding ([\d,]+) rows .*'(.+)'\.$", message)):
            reason = f"window {self._window} wants {_plainly(match[2])}"
            count = int(match[1].replace(",", ""))
            self._tally.refused[reason] = self._tally.refused.get(reason, 0) + count


def _plainly(demand: str) -> str:
    """ACES' "None <= death <= 0" as "no death", "1 <= x <= None" as "x at least 1"."""
    low, predicate, high = demand.split(" <= ")
    if high == "0":
        return f"no {predicate}"
    bounds = [f"at least {low}"] * (low != "None") + [f"at most {high}"] * (high != "None")
    return f"{predicate} {' and '.join(bounds)}"


@contextmanager
def _listening(tally: _Tally) -> Iterator[None]:
    """Hear what ACES logs, and keep it from the terminal."""
    logger = logging.getLogger("aces")
    before = (logger.level, logger.propagate)
    listener = _Listener(tally)
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _refuse_occupied(target: Path, *, force: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    known = set(parquet_files(target)) if target.is_dir() else set()
    if not all(path.is_dir() or path in known for path in target.rglob("*")) or not known:
        raise InputFault(target, "holds other things than labels", "give another --name")
    if not force:
        raise InputFault(target, "exists already", "give another --name, or --force to replace it")


def _refuse_useless(labels: pl.DataFrame, task: TaskFile, tally: _Tally, dataset: MedsDataset) -> None:
    if not tally.triggers:
        what = f"no event is the trigger '{task.trigger}' ({task.trigger_code}) of {task.path}"
        raise InputFault(dataset.root, what, "fit the file's predicates to the codes of the data set")
    if not len(labels):
        refused = "; ".join(f"{reason}: {count}" for reason, count in tally.refused.items() if count)
        what = (
            f"no label came out of {tally.triggers} events that trigger {task.path} ({refused or 'no end'})"
        )
        raise InputFault(dataset.root, what, "fit the file's windows to the data set")
    twice = labels.filter(pl.struct("subject_id", "prediction_time").is_duplicated())
    if len(twice):
        what = f"subject {twice['subject_id'][0]} gets two labels at {twice['prediction_time'][0]}"
        raise InputFault(task.path, what, "choose an index_timestamp that tells the triggers apart")


def _figures(labels: pl.DataFrame, splits: pl.DataFrame | None, tally: _Tally) -> dict[str, Any]:
    left_out = {reason: count for reason, count in tally.refused.items() if count}
    # A window that runs to an event which never comes drops its trigger without a word.
    unexplained = tally.triggers - len(labels) - sum(left_out.values())
    if unexplained > 0:
        left_out["a window runs to an event that is not on record"] = unexplained
    figures = {
        "triggers": tally.triggers,
        "labels": len(labels),
        "positive": int(labels["boolean_value"].sum()),
        "subjects": labels["subject_id"].n_unique(),
        "left_out": left_out,
    }
    if splits is None:
        return figures
    named = labels.join(splits, on="subject_id", how="left").with_columns(pl.col("split").fill_null(NO_SPLIT))
    per_split = named.group_by("split", maintain_order=True).agg(
        pl.len().alias("labels"), pl.col("boolean_value").sum().alias("positive")
    )
    rows = {row["split"]: row for row in per_split.to_dicts()}
    figures["splits"] = {
        split: {key: rows[split][key] for key in ("labels", "positive")}
        for split in (*SPLITS, NO_SPLIT)
        if split in rows
    }
    return figures

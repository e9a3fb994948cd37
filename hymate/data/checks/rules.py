"""Every rule of `hymate data check`: its name, how grave it is, what to say and what to do.

An *error* is what training would refuse or, worse, learn from; a *warning* is what can be right and
often is not. A sentence here speaks of files, columns, tasks and splits, never of a person: what could
point at one (subject, row, value) is kept apart, in `findings.Example`, so that it can be left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """`error` makes the command end with exit code 1."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Rule:
    """One thing that can be wrong; `what` and `remedy` may hold {named} parts filled in by the check."""

    name: str
    severity: Severity
    what: str
    remedy: str


RULES: dict[str, Rule] = {}
"""All rules by name, in the order in which a report lists them."""


def _rule(name: str, severity: Severity, what: str, remedy: str) -> Rule:
    RULES[name] = Rule(name, severity, what, remedy)
    return RULES[name]


_E, _W = Severity.ERROR, Severity.WARNING

# The files as MEDS describes them.
COLUMN_MISSING = _rule("column-missing", _E, "column {column} is missing", "add it, see the MEDS standard")
COLUMN_TYPE = _rule("column-type", _E, "column {column} is {found}, MEDS wants {wanted}", "cast the column")
COLUMN_ENCODING = _rule(
    "column-encoding",
    _W,
    "column {column} is {found} where MEDS says {wanted}: read here, refused by other MEDS tools",
    "write through `align` of the `meds` package to please them too",
)
COLUMN_EXTRA = _rule(
    "column-extra",
    _W,
    "column {column} is not part of MEDS' {schema}: ignored here, refused by other MEDS tools",
    "drop the column",
)
NULL = _rule("null", _E, "column {column} is empty (null)", "every row needs it")
METADATA_UNREADABLE = _rule(
    "metadata-unreadable", _E, "is not a JSON object", "write it again from the source"
)
METADATA_FIELDS = _rule("metadata-fields", _W, "is not as MEDS wants it", "correct the field")

# Events.
NO_EVENTS = _rule("no-events", _E, "no file holds a row", "check the conversion that wrote it")
SUBJECT_SCATTERED = _rule(
    "subject-scattered",
    _E,
    "a subject comes back after another subject's rows",
    "keep each subject's rows together",
)
SUBJECT_IN_TWO_FILES = _rule(
    "subject-in-two-files", _E, "a subject is in another file too", "a subject's events belong in one file"
)
TIME_ORDER = _rule(
    "time-order",
    _E,
    "a subject goes back in time",
    "sort each subject's rows by time, rows without time first",
)
DUPLICATE_ROW = _rule(
    "duplicate-row",
    _W,
    "rows are exact copies of an earlier row",
    "keep one of each, unless the source does count twice",
)
NON_FINITE = _rule(
    "non-finite",
    _E,
    "numeric_value is not a finite number",
    "leave numeric_value empty (null) when there is none",
)
BEFORE_BIRTH = _rule(
    "before-birth",
    _E,
    "events before the subject's MEDS_BIRTH",
    "correct the birth or the times; a wrong join of persons looks like this",
)
AFTER_DEATH = _rule(
    "after-death",
    _W,
    "events after the subject's MEDS_DEATH",
    "late results and bills are common; a model must not see them before its prediction time",
)

# The clock.
FUTURE = _rule("future", _E, "events in the future", "correct the times, or give --now for an older export")
CLOCK_SHIFTED = _rule(
    "clock-shifted",
    _W,
    "most events lie {when}: the whole clock is shifted",
    "right when dates were shifted to hide them (MIMIC-IV does); else correct the conversion",
)
CLOCK_PLACEHOLDER = _rule(
    "clock-placeholder",
    _W,
    "events on {day}, a date that many systems write for 'unknown'",
    "leave such events out, or write them without a time",
)
CLOCK_MIDNIGHT = _rule(
    "clock-midnight",
    _W,
    "every event is at midnight: only the day is known",
    "right for records kept by day; else the conversion lost the time of day",
)

# Codes.
CODES_MISSING = _rule(
    "codes-missing",
    _W,
    "no such file: nobody can read what the codes mean, no unit is known",
    "write one row per code: code, description, unit",
)
CODES_EMPTY = _rule("codes-empty", _W, "describes no code", "write one row per code: code, description, unit")
CODE_UNLISTED = _rule("code-unlisted", _W, "codes of the events are not described", "add one row per code")
CODE_REPEATED = _rule("code-repeated", _W, "codes are described more than once", "keep one row per code")
CODE_UNITS_DIFFER = _rule(
    "code-units-differ",
    _E,
    "a code is described with two units",
    "a code has one unit: convert the values, or write two codes",
)

# Splits.
SPLITS_MISSING = _rule(
    "splits-missing",
    _E,
    "no such file: nobody knows who trains and who is held out",
    "list every subject with train, tuning or held_out",
)
SPLIT_UNKNOWN = _rule("split-unknown", _E, "another split than MEDS names", "use train, tuning, held_out")
SUBJECT_IN_TWO_SPLITS = _rule(
    "subject-in-two-splits",
    _E,
    "a subject is listed more than once",
    "a subject belongs to one split, or the test is worth nothing",
)
SUBJECT_WITHOUT_SPLIT = _rule(
    "subject-without-split",
    _W,
    "subjects with events are in no split: training leaves them out",
    "list them, or remove their events",
)
SPLIT_FOLDER = _rule(
    "split-folder",
    _W,
    "subjects lie in data/{folder} but are listed in another split: hymate goes by the list, "
    "tools that go by the folder would train on held-out subjects",
    "move their events, or correct the list",
)

# Labels.
LABELS_MISSING = _rule(
    "labels-missing",
    _W,
    "no label set: nothing can be fine-tuned or scored",
    "write one folder of labels per task, or give --labels",
)
LABEL_KIND = _rule(
    "label-kind",
    _E,
    "{fault}",
    "a task has one kind of label: boolean_value (yes or no) or float_value (a number)",
)
LABEL_COLUMN_EMPTY = _rule(
    "label-column-empty",
    _W,
    "column {column} holds no value at all (ACES writes such): read here, but MEDS' LabelSchema refuses it",
    "drop the column to please other MEDS tools",
)
LABEL_NULL = _rule("label-null", _E, "labels are empty (null)", "leave rows without a label out")
LABEL_NON_FINITE = _rule(
    "label-non-finite", _E, "labels are not finite numbers", "leave rows without a label out"
)
LABEL_REPEATED = _rule(
    "label-repeated",
    _E,
    "a subject has more than one label at the same prediction time",
    "keep one label per subject and prediction time",
)
LABEL_WITHOUT_DATA = _rule(
    "label-without-data",
    _E,
    "labelled subjects have no events at all",
    "check that labels and data come from the same export and use the same subject_id",
)
LABEL_WITHOUT_SPLIT = _rule(
    "label-without-split", _W, "labelled subjects are in no split: they are left out", "list them in a split"
)
PREDICTION_BEFORE_RECORD = _rule(
    "prediction-before-record",
    _E,
    "prediction times before the subject's first event: the model would see nothing",
    "correct prediction_time (it is the last moment whose data may be used)",
)
PREDICTION_AFTER_RECORD = _rule(
    "prediction-after-record",
    _W,
    "prediction times more than {days} days after the subject's last event",
    "correct prediction_time, or check that the look-back still reaches the record",
)
ONE_CLASS = _rule(
    "one-class",
    _W,
    "task {task}: all labels in {split} are the same, nothing can be learnt or scored there",
    "check the definition of the label; a small site may really be so",
)
TASK_WITHOUT_STAYS = _rule(
    "task-without-stays",
    _W,
    "task {task} has no stay in {split}",
    "check the splits; a small site may really be so",
)
